"""A running service for the benchmarks: ours as tools/serve.py runs it, whose clients are in clients.py."""

import argparse
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from baker.inputs import pillar
from serving.run import Children, fill_cache, find_model, machine_folder

from . import common

POLL_SECONDS = 0.01
LONGEST_START = 300.0
TIMEOUT = 600.0


def prepare(port: int, model: str = "", *, speakers: bool = True) -> Path:
    """Does what a bake does before the service is started; returns its configuration. Telling `speakers` apart needs a
    package of the index."""
    options = argparse.Namespace(host="127.0.0.1", port=port, language="en")
    declared = pillar.load(common.ROOT)
    if not speakers:
        declared["speakers"]["model"] = ""
    found = find_model(model, declared["model"]["endpoint"])
    config = machine_folder(options, declared, found)
    fill_cache(config, found)
    return config


def wait(url: str, alive: Callable[[], bool]) -> float:
    """Seconds until GET `url` answers 200. Exits when the server dies or takes too long."""
    began = time.perf_counter()
    while time.perf_counter() - began < LONGEST_START:
        if status(url) == http.HTTPStatus.OK:
            return time.perf_counter() - began
        if not alive():
            sys.exit(f"the server of {url} ended before it was ready")
        time.sleep(POLL_SECONDS)
    sys.exit(f"{url} was not ready after {LONGEST_START:.0f} s")


def status(url: str) -> int | None:
    """The answer's status, or None when nobody listens."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


@contextmanager
def service(config: Path, port: int) -> Iterator[float]:
    """Both processes of ours; gives the seconds from start to ready."""
    children = Children(config)

    def alive() -> bool:
        children.check()
        return True

    try:
        yield wait(f"http://127.0.0.1:{port}/ready", alive)
    finally:
        children.stop()


@contextmanager
def program(command: list[str], url: str) -> Iterator[float]:
    """Any other server; gives the seconds from start to the first 200 of `url`."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield wait(url, lambda: process.poll() is None)
        finally:
            process.terminate()
