"""Drill: floods by one key, by many keys and by nobody, while a client of another key sends clips of three seconds.
Short here; `./tests/run attack` makes it long. How much longer than alone the client waits is told, not judged."""

import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import multipart
from support.attacked import TESTS, attacked
from support.flooder import spoken
from support.waiting import until
from support.whole_service import serving
from support.worker_fixture import wav
from transcribe.keys import new_key

pytestmark = [pytest.mark.drill, pytest.mark.attack, pytest.mark.alone]
LONG = os.environ.get("DRILLS") == "long"
CLIPS, FILES = (1000, 50) if LONG else (60, 4)  # of the flood
ASKED = 40 if LONG else 6  # clips of the client beside it
KEYS = 20
CLIP = wav(3.0, speech=2.0)


class Client:
    """Somebody with a key, who sends a clip."""

    def __init__(self, port: int, key: str, clip: bytes = CLIP) -> None:
        self.port = port
        self.clip = clip
        self.headers = {"Authorization": f"Bearer {key}"}
        self.answers: Counter[int] = Counter()

    def send(self, path: str, content: bytes) -> int:
        """Status of an upload; 0 for none."""
        body, kind = multipart({"model": "whisper-1"}, content)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {**self.headers, "Content-Type": kind, "Cache-Control": "no-cache"}
        status = 0
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", path, body, headers)
            status = connection.getresponse().status
        connection.close()
        self.answers[status] += 1
        return status

    def wait(self) -> float:
        """How long a clip takes, in seconds. Clients of OpenAI's library try again by themselves when told to."""
        began = time.monotonic()
        while (status := self.send("/v1/audio/transcriptions", self.clip)) in (429, 503):
            time.sleep(0.2)
        assert status == 200
        return time.monotonic() - began


@contextmanager
def flooded(port: int, flood: str, keys: list[str]) -> Iterator[None]:
    """Eight clients of the others' keys send during the block."""
    path = os.pathsep.join(str(TESTS.parent / folder) for folder in ("tests", "service", "tools", "salt"))
    amounts = (CLIPS, FILES, 600.0 if LONG else 60.0)
    command = [sys.executable, TESTS / "support/flooder.py", port, flood, *amounts, *keys]
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "the flood did not begin"
        time.sleep(2.0)
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("flood", ["by_one", "by_many", "by_nobody"])
def test_a_client_of_another_key_is_served(tmp_path: Path, flood: str) -> None:
    keys, changes = keyed(tmp_path)
    with attacked(tmp_path, tmp_path, **changes) as service:
        client = Client(service.port, keys[-1])
        beside_alone(client, flood, keys[:-1])
        until(service.ready, 60)
        restarts = {name: count - 1 for name, count in service.starts.items()}
    assert not any(restarts.values())


@pytest.mark.model
def test_a_client_of_another_key_is_served_by_a_real_model(tmp_path: Path) -> None:
    keys, changes = keyed(tmp_path)
    with serving(tmp_path, "whisper-base", **changes) as service:
        beside_alone(Client(service.port, keys[-1], spoken(3.0)), "by_one_aloud", keys[:-1])


def keyed(root: Path) -> tuple[list[str], dict[str, Any]]:
    """Keys, and the configuration of a service that takes them."""
    keys = [new_key(f"client{number}") for number in range(KEYS + 2)]
    (root / "keys").write_text("".join(f"{line}\n" for _, line in keys))
    limits = {"limits.key_jobs": 2000, "limits.queue_audio_seconds": 200_000}
    return [key for key, _ in keys], {"auth.keys_file": str(root / "keys"), **limits}


def beside_alone(client: Client, flood: str, others: list[str]) -> None:
    """Sends clips alone and beside a flood of the others' keys, and tells how long they took."""
    client.wait()
    alone = [client.wait() for _ in range(ASKED)]
    with flooded(client.port, flood, others):
        beside = [client.wait() for _ in range(ASKED)]
    assert set(client.answers) <= {200, 429, 503}
    slow = [statistics.quantiles(times, n=20)[-1] for times in (alone, beside)]
    print(
        f"flood {flood}: a clip of 3 s alone {statistics.median(alone):.2f} s (p95 {slow[0]:.2f} s), beside it"
        f" {statistics.median(beside):.2f} s (p95 {slow[1]:.2f} s), answers {dict(client.answers)}"
    )
