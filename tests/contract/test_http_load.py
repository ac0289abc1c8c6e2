"""The server under load, with clients that are slow, many or gone, with a full queue and a full disk."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import Api, multipart, run_retention, running
from support.waiting import until

pytestmark = pytest.mark.attack

TRANSCRIBE = "/v1/audio/transcriptions"
UNFINISHED = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 90000\r\n\r\n--B"
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    changes = {"limits__upload_bytes": 100_000, "limits__waiting_requests": 6, "limits__queue_jobs": 8}
    with running(tmp_path_factory.mktemp("api"), **changes) as found:
        yield found


def test_health_reports_device_model_and_queue(api: Api) -> None:
    found = api.get("/health").json
    assert (found["device"], found["cuda_available"], found["torch_version"]) == ("cpu", False, "2.13.0")
    assert (found["model"], found["status"], found["ready"]) == ("KBLab/kb-whisper-small", "healthy", True)
    assert set(found["queue"]) == {"jobs_queued", "jobs_running", "audio_seconds"}


def test_health_has_the_workers_own_words_of_gpu_and_engine(api: Api) -> None:
    found = api.get("/health").json
    assert (found["nvidia_devices"], found["gpu"]) == ([], None)
    assert found["engine"]["rows"] == 16
    assert found["engine"]["steps"] == {"wanted": True, "recorded": 9, "plain": 1, "failed_captures": 1, "failure": "x"}


@pytest.mark.parametrize(
    ("facts", "status", "word"),
    [
        ({"state": "loading"}, 503, "loading"),
        ({"state": "broken", "reason": "no model"}, 503, "no model"),
        ({"state": "draining"}, 503, "draining"),
        ({"state": "ready"}, 200, "null"),
        ({"state": "ready", "nvidia_devices": ["0000:00:1e.0"]}, 503, "(0000:00:1e.0) but the worker runs on cpu"),
        ({"state": "ready", "nvidia_devices": ["0000:00:1e.0"], "device": "cuda"}, 200, "null"),
    ],
)
def test_ready_follows_the_worker(api: Api, facts: dict[str, Any], status: int, word: str) -> None:
    before = dict(api.worker.facts)
    api.worker.facts.update(facts)
    api.store.set_worker(api.worker.facts)
    try:
        until(lambda: api.get("/ready").status == status)
        assert word in api.get("/ready").body.decode()
        if facts["state"] == "broken":
            refused = api.upload(TRANSCRIBE)
            assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "worker_unavailable", "30")
            assert api.upload("/v1/jobs", b"for later").status == 202
    finally:
        api.worker.facts.clear()
        api.worker.facts.update(before)
        api.store.set_worker(before)
        until(lambda: api.get("/ready").status == 200)


def test_who_wants_the_processor_is_ready_beside_a_gpu(tmp_path: Path) -> None:
    with running(tmp_path, device="cpu") as other:
        other.worker.facts["nvidia_devices"] = ["0000:00:1e.0"]
        other.store.set_worker(other.worker.facts)
        until(lambda: other.get("/health").json["nvidia_devices"] == ["0000:00:1e.0"])
        assert other.get("/ready").status == 200


def test_metrics_are_prometheus(api: Api) -> None:
    text = api.get("/metrics").body.decode()
    for line in (
        'transcribe_worker_state{state="ready"} 1.0',
        "transcribe_real_time_factor 0.1",
        "transcribe_worker_fallbacks_total 3.0",
        "transcribe_worker_recorded_steps_total 9.0",
        'transcribe_worker_batch_size_bucket{le="8.0"} 6.0',
    ):
        assert line in text.splitlines()


def test_health_is_fast_while_all_slots_are_taken(held: Api) -> None:
    replies: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: replies.append(held.upload(TRANSCRIBE, b"wait %d" % n).status))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    until(lambda: held.shared.watcher.snapshot.queue.jobs == 6)
    times = []
    for _ in range(40):
        began = time.monotonic()
        assert held.get("/health").status == 200
        times.append(time.monotonic() - began)
    refused = held.upload(TRANSCRIBE, b"one more")
    assert (refused.status, refused.code) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    held.worker.hold.clear()
    for thread in threads:
        thread.join(10)
    assert replies == [200] * 6
    assert max(times) < 1.0  # it waits for none of them; how fast it is, a benchmark tells


def test_a_full_queue_says_when_to_come_back(held: Api) -> None:
    for number in range(8):
        assert held.upload("/v1/jobs", b"%d" % number * 40_000).status == 202
    refused = held.upload("/v1/jobs", b"more")
    assert (refused.status, refused.code) == (429, "queue_full")
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    until(lambda: held.get("/health").json["status"] == "degraded")
    run_retention(held, time.time())
    assert len(list(held.config.temp.iterdir())) == 8


def test_a_client_that_leaves_frees_its_slot(held: Api) -> None:
    body, content_type = multipart({"model": "whisper-1"}, b"gone")
    connection = http.client.HTTPConnection("127.0.0.1", int(held.server.effective_port))
    connection.request("POST", TRANSCRIBE, body, {"Content-Type": content_type})
    until(held.store.unfinished)
    [job] = held.store.unfinished()
    connection.close()

    def over() -> bool:
        found = held.store.get(job.id)
        return found is not None and found.status == "cancelled"

    until(over, 5)
    run_retention(held, time.time())
    assert not (held.config.temp / job.id).exists()
    assert held.shared.metrics.waiting._value.get() == 0


def test_a_stream_that_its_client_leaves_frees_its_slot(api: Api) -> None:
    body, content_type = multipart({"model": "whisper-1", "stream": "true"}, b"streamed and gone")
    api.worker.delay = 0.3
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(api.server.effective_port))
        connection.request("POST", TRANSCRIBE, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        assert api.shared.metrics.waiting._value.get() == 1
        answer.close()
        connection.close()
        until(lambda: api.shared.metrics.waiting._value.get() == 0, 5)
    finally:
        api.worker.delay = 0.0


def test_trickling_clients_do_not_delay_a_good_one(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(api.server.effective_port)
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for connection in slow:
        connection.sendall(UNFINISHED)
    began = time.monotonic()
    assert api.upload(TRANSCRIBE, b"quick").status == 200
    assert time.monotonic() - began < 1
    monkeypatch.setattr("transcribe.api.wsgi.BODY_SECONDS", 0.0)
    monkeypatch.setattr(api.server, "next_channel_cleanup", 0)
    assert api.get("/health").status == 200
    until(lambda: len(api.server.active_channels) < 10)
    for connection in slow:
        connection.close()


def test_a_full_disk_is_507_and_loses_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    kept = api.upload("/v1/jobs", b"kept").json["id"]
    with monkeypatch.context() as patched:
        patched.setattr("transcribe.api.upload.Spool.write", full)
        assert api.upload(TRANSCRIBE, b"no room").code == "insufficient_storage"
    with monkeypatch.context() as patched:
        patched.setattr("waitress.receiver.FixedStreamReceiver.received", full)
        reply = api.upload(TRANSCRIBE, b"no room either")
        assert (reply.status, reply.code) == (507, "insufficient_storage")
    assert api.get(f"/v1/jobs/{kept}").status == 200
    assert api.upload(TRANSCRIBE, b"room again").status == 200
