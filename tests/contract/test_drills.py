"""Drills: many clients at once, and kill -9 at random moments. Short here; `DRILLS=long` makes them as long as they
should be before a release. Their figures are printed (pytest -s)."""

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import fake_worker
from support.api_process import ApiProcess, started
from support.api_server_fixture import free_port, multipart, settings
from support.fake_worker import FakeWorker
from transcribe.config import ServiceConfig
from transcribe.jobs.store import Store
from transcribe.keys import new_key

pytestmark = [pytest.mark.drill, pytest.mark.attack]
LONG = os.environ.get("DRILLS") == "long"
CLIENTS = 200
KILLS = 30 if LONG else 4  # of each process
TRANSCRIBE = "/v1/audio/transcriptions"


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return settings(tmp_path, {"port": free_port(), "limits.queue_jobs": 100, "limits.waiting_requests": 32})


class Crowd:
    """Clients that obey Retry-After."""

    def __init__(self, process: ApiProcess) -> None:
        self.process = process
        self.statuses: Counter[int] = Counter()
        self.waits: list[int] = []
        self.texts: list[str] = []
        self.lock = threading.Lock()

    def client(self, number: int) -> None:
        while True:
            reply = self.process.upload(TRANSCRIBE, b"client %d" % number)
            with self.lock:
                self.statuses[reply.status] += 1
                if reply.status == 200:
                    self.texts.append(reply.json["text"])
                    return
                self.waits.append(int(reply.headers["Retry-After"]))
            time.sleep(random.uniform(0.2, 1.0))  # not as long as Retry-After says, or the drill takes minutes


@pytest.mark.alone
def test_two_hundred_clients_at_once(tmp_path: Path, config: dict[str, Any]) -> None:
    paths = ServiceConfig.from_mapping(config)
    worker = FakeWorker(Store(paths.database), paths.temp, delay=0.005).start()
    times: list[float] = []
    with started(tmp_path, config) as process:
        crowd = Crowd(process)
        threads = [threading.Thread(target=crowd.client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            assert process.request("GET", "/health").status == 200
            times.append(time.monotonic() - began)
            time.sleep(0.02)
    worker.stop()
    slowest = sorted(times)[int(len(times) * 0.99) - 1]
    waits = f"Retry-After {min(crowd.waits)} to {max(crowd.waits)} s"
    print(f"{CLIENTS} clients: {dict(crowd.statuses)}, {waits}, /health p99 {slowest * 1000:.0f} ms of {len(times)}")
    assert len(crowd.texts) == CLIENTS
    assert set(crowd.statuses) == {200, 429}
    assert all(1 <= wait <= 120 for wait in crowd.waits)
    assert len({job.id for job in worker.seen}) == len(worker.seen) == CLIENTS
    assert slowest < (0.2 if LONG else 1.0), "clients and server share this computer; the long drill runs alone"


def run_worker(paths: ServiceConfig) -> "subprocess.Popen[bytes]":
    command = [sys.executable, fake_worker.__file__, str(paths.database), str(paths.temp), "0.01"]
    service = Path(__file__).resolve().parents[2] / "service"
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(service)})


def test_kill_9_at_random_moments_under_load(tmp_path: Path, config: dict[str, Any]) -> None:
    paths = ServiceConfig.from_mapping({**config, "limits": {**config["limits"], "queue_jobs": 5000, "key_jobs": 5000}})
    config["limits"] |= {"queue_jobs": 5000, "key_jobs": 5000}
    accepted: list[str] = []
    worker = run_worker(paths)
    for round_ in range(KILLS):
        with started(tmp_path, config) as process:
            threading.Timer(random.uniform(0.2, 1.0), process.popen.kill).start()
            threading.Timer(random.uniform(0.1, 0.8), worker.kill).start()
            for number in range(10_000):
                try:
                    reply = process.upload("/v1/jobs", b"%d %d" % (round_, number))
                except (OSError, http.client.HTTPException):
                    break
                accepted += [reply.json["id"]] if reply.status == 202 else []
        worker.wait()
        worker = run_worker(paths)
    store = Store(paths.database)
    seen, since = None, time.monotonic()  # thousands of jobs take minutes: it waits as long as something moves
    while (counts := store.counts()).keys() & {"queued", "running"} and time.monotonic() < since + 60:
        if counts != seen:
            seen, since = counts, time.monotonic()
        time.sleep(0.1)
    worker.kill()
    worker.wait()
    found = Counter(job.status if (job := store.get(job_id)) else "lost" for job_id in accepted)
    whole = [[piece.text for piece in store.segments(job_id)] == list(fake_worker.TEXTS) for job_id in accepted]
    print(f"{2 * KILLS} kills: {len(accepted)} jobs accepted, {dict(found)}")
    assert len(accepted) >= KILLS
    assert set(found) == {"done"}
    assert all(whole), "a job has text twice, or not all of it"


@pytest.mark.alone
def test_idle_connections_keep_nobody_waiting(tmp_path: Path, config: dict[str, Any]) -> None:
    """Over a thousand connections without a key that say nothing, and ten new ones a second."""
    seconds = 200 if LONG else 6
    key, line = new_key("drill")
    keys = tmp_path / "keys"
    keys.write_text(line)
    config["auth"]["keys_file"] = str(keys)
    paths = ServiceConfig.from_mapping(config)
    worker = FakeWorker(Store(paths.database), paths.temp, delay=0.005).start()
    times: list[float] = []
    idle: list[socket.socket] = []
    with started(tmp_path, config) as process:
        body, kind = multipart({"model": "whisper-1"}, b"sound")
        head = {"Content-Type": kind, "Authorization": f"Bearer {key}", "Cache-Control": "no-cache"}
        for _ in range(1100):
            idle.append(socket.create_connection(("127.0.0.1", process.port)))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            idle += [socket.create_connection(("127.0.0.1", process.port)) for _ in range(2)]
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
            connection.request("POST", TRANSCRIBE, body, head)
            assert connection.getresponse().status == 200
            connection.close()
            times.append(time.monotonic() - began)
            time.sleep(max(0.0, 0.2 - times[-1]))
        assert process.popen.poll() is None
    for opened in idle:
        opened.close()
    worker.stop()
    slowest = sorted(times)[int(len(times) * 0.99) - 1]
    print(f"{len(idle)} idle connections: {len(times)} answers with a key, p99 {slowest * 1000:.0f} ms")
    assert slowest < 1.0 or not LONG
