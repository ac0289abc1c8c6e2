"""api_server.py as a process: how it starts, what it logs, how it stops, and what kill -9 leaves."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from support.api_process import PROGRAM, started
from support.api_server_fixture import Reply, free_port, settings
from support.fake_worker import FakeWorker
from support.waiting import until
from transcribe.config import ServiceConfig
from transcribe.jobs.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return settings(tmp_path, {"port": free_port()})


@pytest.fixture
def worker(tmp_path: Path, config: dict[str, Any]) -> Iterator[FakeWorker]:
    paths = ServiceConfig.from_mapping(config)
    found = FakeWorker(Store(paths.database), paths.temp).start()
    yield found
    found.stop()


@pytest.mark.usefixtures("worker")
def test_it_is_ready_when_it_listens_and_feeds_the_watchdog(tmp_path: Path, config: dict[str, Any]) -> None:
    with started(tmp_path, config, WATCHDOG_USEC="2000000") as process:
        assert process.request("GET", "/health").status == 200
        assert process.notified.recv(200) == b"WATCHDOG=1"
        process.stop(signal.SIGTERM)
        assert process.popen.returncode == 0


@pytest.mark.usefixtures("worker")
def test_logs_are_json_without_words_names_or_keys(tmp_path: Path, config: dict[str, Any]) -> None:
    planted = ("hemligprompt", "hemligtnamn", "sk-hemlignyckel", "välkomna", "hemligtsprak")
    with started(tmp_path, config) as process:
        fields = {"prompt": "hemligprompt", "filename": "hemligtnamn\\r\\nfejk.wav"}
        assert process.upload("/v1/audio/transcriptions", b"log", **fields).status == 200
        assert process.upload("/v1/audio/transcriptions", b"log", language="hemligtsprak").status == 400
        assert process.request("GET", "/v1/jobs/sk-hemlignyckel?x=hemligtnamn").status == 404
        logged = process.stop(signal.SIGTERM)
    text = json.dumps(logged, ensure_ascii=False)
    assert [word for word in planted if word in text] == []
    requests = [entry for entry in logged if entry["event"] == "request"]
    assert [(entry["route"], entry["status"]) for entry in requests] == [
        ("/v1/audio/transcriptions", 200),
        ("/v1/audio/transcriptions", 400),
        ("/v1/jobs/<job_id>", 404),
    ]
    assert not any(entry["level"] in ("error", "warning") for entry in logged)


def test_sigterm_lets_a_running_request_finish(tmp_path: Path, config: dict[str, Any], worker: FakeWorker) -> None:
    worker.hold.set()
    replies: list[Reply] = []
    with started(tmp_path, config) as process:
        thread = threading.Thread(target=lambda: replies.append(process.upload("/v1/audio/transcriptions", b"drain")))
        thread.start()
        while not worker.store.unfinished():
            time.sleep(0.01)
        process.popen.send_signal(signal.SIGTERM)
        assert process.notified.recv(200).startswith(b"STOPPING=1")
        assert process.request("GET", "/ready").status == 503
        refused = process.upload("/v1/jobs", b"too late")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "restarting", "5")
        worker.hold.clear()
        process.popen.wait(15)
        thread.join()
    assert process.popen.returncode == 0
    assert [reply.status for reply in replies] == [200]


def test_kill_9_keeps_every_accepted_job(tmp_path: Path, config: dict[str, Any], worker: FakeWorker) -> None:
    accepted: list[str] = []
    worker.delay = 0.01
    round_ = 0
    while round_ < 3 or len(accepted) < 6:
        round_ += 1
        assert round_ < 20, "the server accepts nothing"
        with started(tmp_path, config) as process:
            threading.Timer(0.3 + 0.2 * round_, process.popen.kill).start()
            for number in range(10_000):
                try:
                    reply = process.upload("/v1/jobs", b"kill %d %d" % (round_, number))
                except (OSError, HTTPException):
                    break
                if reply.status == 202:
                    accepted.append(reply.json["id"])
    until(lambda: not worker.store.unfinished(), 60)
    states = [job.status if (job := worker.store.get(job_id)) else None for job_id in accepted]
    assert set(states) == {"done"}
    ended = [job.id for job in worker.seen]
    assert len(ended) == len(set(ended)), "a job was worked on twice"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "host 0.0.0.0 can be reached from a network: set auth.keys_file"),
        ({"host": "::"}, "host :: can be reached from a network"),
        ({"auth.keys_file": "/nowhere/keys"}, "/nowhere/keys cannot be read"),
        ({"callbacks.enabled": True}, "callbacks.enabled needs callbacks.secret_file"),
        ({"port": "x"}, "port must be a whole number"),
    ],
)
def test_it_refuses_a_configuration_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = tmp_path / "transcribe.json"
    file.write_text(json.dumps(settings(tmp_path, changes)))
    command = [sys.executable, str(PROGRAM)]
    environment = {**os.environ, "TRANSCRIBE_CONFIG": str(file)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_one_line(tmp_path: Path, config: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", config["port"])):
        (tmp_path / "transcribe.json").write_text(json.dumps(config))
        environment = {**os.environ, "TRANSCRIBE_CONFIG": str(tmp_path / "transcribe.json")}
        command = [sys.executable, str(PROGRAM)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "in use" in done.stderr
