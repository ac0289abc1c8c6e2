"""Run the service on this computer: prepare the model and a folder like the machine's, start and watch the service."""

import argparse
import getpass
import http.client
import importlib.metadata
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baker.errors import UsageError
from baker.inputs import pillar
from baker.inputs.model_hub import resolve
from localcloud.hub import models

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "service"
CACHE = ROOT / ".cache"
DEFAULT_MODEL = "whisper-base"
LOCAL_OWNER = "local"  # as the hub would call the owner of a model that is only a folder
EXIT_FAILED, EXIT_USAGE = 1, 2
READY_SECONDS = 600.0
STOP_SECONDS = 30.0  # the service finishes its running requests in less


class ServeError(Exception):
    """One line for the user; `code` is the exit code."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ServedModel:
    """Which model: a commit of the hub's, or the same made of a folder (then `folder` is not None)."""

    id: str
    commit: str
    folder: Path | None = None

    @property
    def slug(self) -> str:
        return re.sub(r"[^\w.-]+", "--", self.id)


def find_model(wanted: str, endpoint: str) -> ServedModel:
    """The model that is asked for. Raises ServeError."""
    if not wanted:
        try:
            folder = models.model_dir(DEFAULT_MODEL)
        except models.ModelError as error:
            raise ServeError(str(error)) from None
        return ServedModel(models.SOURCES[DEFAULT_MODEL].id, models.commit_of(folder), folder)
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ServeError(
                f"--model {wanted}: there is no config.json, so it is no transformers directory", EXIT_USAGE
            )
        return ServedModel(f"{LOCAL_OWNER}/{folder.resolve().name}", models.commit_of(folder), folder.resolve())
    if wanted.startswith((".", "/", "~")):
        raise ServeError(f"--model {wanted}: there is no such folder", EXIT_USAGE)
    model_id, _, revision = wanted.partition("@")
    try:
        return ServedModel(model_id, resolve(endpoint, model_id, revision or "main"))
    except UsageError as error:
        raise ServeError(str(error)) from None


def machine_folder(options: argparse.Namespace, declared: Mapping[str, Any], model: ServedModel) -> Path:
    """A folder like the machine's root; returns its configuration file."""
    root = CACHE / "serve" / f"{model.slug}-{options.port}"
    shared = CACHE / "serve/models" / model.slug  # one download for every port
    for folder in (root, shared, *(root / name for name in ("cache", "config", "temp", "logs", "results"))):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # recordings and their texts; an older version let everyone read them
    if not (root / "models").exists():
        (root / "models").symlink_to(shared)
    if model.folder is not None:
        lay_out(model, shared / f"models--{model.id.replace('/', '--')}" / "snapshots" / model.commit)
    overrides = {
        "root": str(root),
        "user": getpass.getuser(),
        "group": getpass.getuser(),
        "host": options.host,
        "port": options.port,
        # A GPU that torch was built without is left alone; the service would otherwise never be ready beside it.
        **({"device": "cpu"} if importlib.metadata.version("torch").endswith("+cpu") else {}),
        "model": {"id": model.id, "revision": model.commit, "language": options.language},
    }
    path = root / "config/transcribe.json"
    path.write_text(json.dumps(pillar.merge(declared, overrides), indent=1) + "\n", encoding="utf-8")
    return path


def lay_out(model: ServedModel, snapshot: Path) -> None:
    """Give a model's folder the form of the hub's cache. Linked where possible: nothing is copied, nothing shared."""
    assert model.folder is not None
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in model.folder.iterdir():
        target = snapshot / file.name
        if file.is_file() and not target.exists():
            try:
                os.link(file.resolve(), target)
            except OSError:  # another file system, or another owner's file
                shutil.copyfile(file, target)
    if not (snapshot / "provenance.json").exists():
        source = f"the folder {model.folder.name} of the computer that serves it"
        (snapshot / "provenance.json").write_text(json.dumps({"source": source}) + "\n", encoding="utf-8")


def environment(config: Path, *, offline: bool) -> dict[str, str]:
    """What the service's programs are given; on a machine its units say the same."""
    variables = {**os.environ, "TRANSCRIBE_CONFIG": str(config), "PYTHONUNBUFFERED": "1"}
    return variables | {"HF_HUB_OFFLINE": "1"} if offline else variables


def fill_cache(config: Path, model: ServedModel) -> None:
    """Download, check and warm the model, exactly as a bake does. Raises ServeError."""
    command = [sys.executable, str(SERVICE / "advanced_cache.py")]
    done = subprocess.run(command, check=False, env=environment(config, offline=model.folder is not None))
    if done.returncode != 0:
        raise ServeError(f"the model {model.id} could not be put into the cache")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    about = "Run the service on this computer, without any machine and without root. Ctrl-C stops it."
    parser = argparse.ArgumentParser(prog="serve.py", description=about)
    parser.add_argument(
        "--model",
        metavar="DIR_OR_ID",
        default="",
        help="a transformers directory, or ID or ID@REVISION of the hub (default: a small real Whisper)",
    )
    parser.add_argument("--port", metavar="N", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="an address of this computer (default: 127.0.0.1)")
    parser.add_argument("--language", metavar="CODE", default="", help="default: heard from each recording")
    return parser.parse_args(arguments)


def check_host(host: str, port: int) -> None:
    """Refuse early what would only show as a dead child. Raises ServeError."""
    if shutil.which("ffmpeg") is None:
        raise ServeError("ffmpeg is not installed, and the service decodes with it: sudo apt-get install ffmpeg")
    if not 1 <= port <= 65_535:
        raise ServeError(f"--port {port}: must be from 1 to 65535", EXIT_USAGE)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ServeError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from None


class Children:
    """The service's two processes."""

    def __init__(self, config: Path) -> None:
        self.logs = config.parent.parent / "logs"
        variables = environment(config, offline=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name, arguments in {"api": ["api_server.py"], "worker": ["transcribe_optimized.py", "--worker"]}.items():
            with (self.logs / f"{name}.log").open("wb") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, str(SERVICE / arguments[0]), *arguments[1:]],
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C of the terminal is for us to pass on
                )

    def check(self) -> None:
        """Raise ServeError if one has died, with the last line that it wrote."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self.logs / f"{name}.log"
                lines = log.read_text(errors="replace").strip().splitlines()
                last = lines[-1] if lines else "it wrote nothing"
                raise ServeError(f"the {name} process ended with {process.returncode}: {last} (log: {log})")

    def stop(self) -> None:
        """Let both finish what runs, and end them; a second Ctrl-C ends them at once."""
        try:
            for process in self._processes.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            end = time.monotonic() + STOP_SECONDS
            for process in self._processes.values():
                process.wait(max(end - time.monotonic(), 0.1))
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            for process in self._processes.values():
                process.kill()


def wait_ready(children: Children, host: str, port: int) -> None:
    """Return when GET /ready answers 200. Raises ServeError when that cannot come any more."""
    end = time.monotonic() + READY_SECONDS
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared with, not bound to
    while time.monotonic() < end:
        children.check()
        connection = http.client.HTTPConnection(reachable, port, timeout=5)
        try:
            connection.request("GET", "/ready")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.2)
    raise ServeError(f"the service was not ready after {READY_SECONDS:.0f} s (logs: {children.logs})")


def serve(options: argparse.Namespace) -> None:
    """Prepare, start, and stay until Ctrl-C or the death of a child. Raises ServeError."""
    check_host(options.host, options.port)
    declared = pillar.load(ROOT)
    model = find_model(options.model, declared["model"]["endpoint"])
    config = machine_folder(options, declared, model)
    fill_cache(config, model)
    children = Children(config)
    try:
        wait_ready(children, options.host, options.port)
        print(f"ready: http://{options.host}:{options.port}  (logs: {children.logs}; Ctrl-C stops it)", flush=True)
        while True:
            time.sleep(0.5)
            children.check()
    finally:
        children.stop()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    os.umask(0o077)  # recordings, texts and the job store are for this user alone
    try:
        serve(parse(arguments))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0
    except ServeError as error:
        print(f"serve: {error}", file=sys.stderr)
        return error.code
    return 0
