"""Clients that break the protocol, leave at the worst moment, or only want to be in the way: the server serves on."""

import contextlib
import hashlib
import itertools
import json
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.api_server_fixture import Api, multipart, running
from support.waiting import until
from transcribe.api import wsgi
from transcribe.api.fair_semaphore import FairSemaphore
from transcribe.api.references import too_large
from transcribe.api.spool import Spool
from transcribe.jobs.store import Store
from transcribe.keys import new_key
from transcribe.worker.status import StatusReporter

pytestmark = pytest.mark.attack

LONG = os.environ.get("DRILLS") == "long"
KEY, OTHER = "sk-hostile", "sk-other"
POST = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
AUTHORIZED = POST + b"Authorization: Bearer " + KEY.encode() + b"\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=B\r\n"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("hostile")
    keys = folder / "keys"
    lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}" for name, key in (("a", KEY), ("b", OTHER))]
    keys.write_text("\n".join(lines))
    with running(folder, auth__keys_file=str(keys), limits__upload_bytes=1_000_000) as found:
        yield found


def connect(api: Api) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.server.effective_port), timeout=10)


def answer(connection: socket.socket) -> bytes:
    """All that the server sends until it closes."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def serves(api: Api) -> bool:
    return api.get("/health").status == 200 and api.upload("/v1/audio/transcriptions", key=KEY).status == 200


# Requests that the server refuses by itself, or never sees the end of.
REQUESTS: dict[str, bytes] = {
    "garbage": b"x\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "binary": bytes(range(256)) * 4 + b"\r\n\r\n",
    "header of 40 kB": b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9000 + b"\r\n",
    "body over the limit": AUTHORIZED + FORM + b"Content-Length: 99999999\r\n\r\n" + b"--B" * 5000,
    "length is no number": AUTHORIZED + b"Content-Length: -1\r\n\r\nxxxx",
    "two lengths": AUTHORIZED + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "unknown coding": AUTHORIZED + b"Transfer-Encoding: gzip\r\n\r\nxxxx",
    "chunk without size": AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "chunk cut": AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "chunk badly ended": AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    "no key": POST + FORM + b"Content-Length: 900000\r\n\r\n" + b"--B\r\n" * 1000,
    "unfinished head": b"POST /v1/jobs HTTP/1.1\r\nHost: loc",
    "unfinished body": AUTHORIZED + FORM + b"Content-Length: 900000\r\n\r\n--B",
    "two at once": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2 + b"x\r\n\r\n",
    "expects to continue": POST + FORM + b"Expect: 100-continue\r\nContent-Length: 900000\r\n\r\n",
    "nothing": b"",
}


def leave_at_once(connection: socket.socket) -> None:
    connection.close()


def leave_with_a_reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_a_byte_and_leave(connection: socket.socket) -> None:
    connection.settimeout(0.05)
    with contextlib.suppress(OSError):
        connection.recv(1)
    connection.close()


def read_a_byte_and_reset(connection: socket.socket) -> None:
    connection.settimeout(0.05)
    with contextlib.suppress(OSError):
        connection.recv(1)
    leave_with_a_reset(connection)


def half_close(connection: socket.socket) -> None:
    connection.settimeout(0.05)
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)
    except OSError:
        pass
    connection.close()


def send_more_and_leave(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"y" * 70_000)
    connection.close()


WAYS: list[Callable[[socket.socket], None]] = [
    leave_at_once,
    leave_with_a_reset,
    read_a_byte_and_leave,
    read_a_byte_and_reset,
    half_close,
    send_more_and_leave,
]


@pytest.mark.slow
def test_no_request_and_no_way_of_leaving_ends_the_server(api: Api) -> None:
    chance = random.Random(7)
    for _ in range(40 if LONG else 2):
        for request, leave in itertools.product(REQUESTS.values(), WAYS):
            connection = connect(api)
            cut = request[: chance.randrange(len(request) + 1)] if chance.random() < 0.3 else request
            with contextlib.suppress(OSError):  # refused before all of it was sent
                connection.sendall(cut)
            if chance.random() < 0.3:
                time.sleep(chance.uniform(0, 0.01))
            leave(connection)
    assert serves(api)


def test_an_exception_in_the_loop_costs_one_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bool:
        raise RuntimeError("asked for what it waits for")

    with connect(api) as victim:
        victim.sendall(b"GET /health HTTP/1.1\r\n")
        until(lambda: any(channel.request for channel in api.server.active_channels.values()))
        [channel] = [channel for channel in api.server.active_channels.values() if channel.request]
        monkeypatch.setattr(channel, "readable", broken)
        assert answer(victim) == b""
    assert serves(api)


@pytest.mark.parametrize("name", ["garbage", "header of 40 kB", "length is no number", "no key", "unknown coding"])
def test_a_refusal_is_one_of_openais_errors(api: Api, name: str) -> None:
    with connect(api) as connection:
        connection.sendall(REQUESTS[name])
        head, _, body = answer(connection).partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 501"))
    assert b"x-request-id" in head.lower()
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_body_without_a_key_is_refused_by_its_head(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(POST + FORM + b"Expect: 100-continue\r\nContent-Length: 900000\r\n\r\n")
        received = answer(connection)
    assert received.startswith(b"HTTP/1.1 401")
    assert b"100 Continue" not in received
    assert api.send("POST", "/health", b"x" * 100_000).status == 413


def test_a_chunk_size_that_never_ends_is_refused(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(AUTHORIZED + FORM + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            while sent < 2_000_000:
                sent += connection.send(b"1" * 10_000)
                time.sleep(0.001)
        except OSError:
            pass
        assert answer(connection).startswith((b"HTTP/1.1 400", b""))
    assert serves(api)


def chunked(content: bytes, size: int) -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_chunks_of_a_byte_are_refused_and_small_ones_are_not(api: Api) -> None:
    body, kind = multipart({"model": "whisper-1"}, b"sound" * 20_000)
    head = AUTHORIZED + f"Content-Type: {kind}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for size, status in ((1, b"HTTP/1.1 400"), (8, b"HTTP/1.1 200"), (40, b"HTTP/1.1 200")):
        with connect(api) as connection:
            with contextlib.suppress(OSError):  # refused before all of it was sent
                connection.sendall(head + chunked(body, size))
            received = answer(connection)
        assert received.startswith(status)
        assert (b"chunks are too small" in received) == (size == 1)
    with connect(api) as connection:  # the head of a form may come by the letter
        connection.sendall(head + chunked(body[:5000], 1)[:-5] + chunked(body[5000:], 8192))
        assert answer(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_bodies_that_nothing_waits_for_keep_nobody_out(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: bytes
) -> None:
    monkeypatch.setattr(wsgi, "CONNECTIONS_OF_ADDRESS", 40)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(api)) for _ in range(35)]
        for connection in waiting:
            connection.sendall(method + b" /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        until(lambda: len(api.server.active_channels) >= 35)
        more = [stack.enter_context(connect(api)) for _ in range(10)]
        for connection in more:
            connection.sendall(method + b" /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        assert serves(api)
        assert more[-1].recv(4096).startswith(b"HTTP/1.1 413")


def test_idle_connections_make_room(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "CONNECTIONS_OF_ADDRESS", 50)
    idle = [connect(api) for _ in range(120)]
    assert serves(api)
    assert len(api.server.active_channels) <= 52
    assert answer(idle[0]) == b""  # the first one was closed
    for connection in idle:
        connection.close()


def test_a_connection_that_says_nothing_is_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "FIRST_BYTE_SECONDS", 0.1)
    monkeypatch.setattr(api.server, "next_channel_cleanup", 0)
    with connect(api) as connection:
        time.sleep(0.2)
        monkeypatch.setattr(api.server, "next_channel_cleanup", 0)
        assert answer(connection) == b""


def test_unfinished_uploads_of_a_key_are_bounded(api: Api) -> None:
    head = AUTHORIZED + FORM + b"Content-Length: 1000000\r\n\r\n"
    waiting = []
    for _ in range(6):
        connection = connect(api)
        connection.sendall(head + b"x" * 900_000)
        waiting.append(connection)
    under_way = wsgi.UPLOADS_OF_KEY * 1_000_000
    until(lambda: sum(r.body_bytes_received for r in api.server._unfinished()) > under_way)
    refused = api.upload("/v1/audio/transcriptions", key=KEY)
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert api.upload("/v1/audio/transcriptions", key=OTHER).status == 200
    for connection in waiting:
        connection.close()
    until(lambda: api.upload("/v1/audio/transcriptions", key=KEY).status == 200)


@pytest.mark.parametrize("origin", ["http://[", "null", "http://evil.example", "http://[::1", "\u00e4"])
def test_a_strange_origin_is_refused_politely(tmp_path: Path, origin: str) -> None:
    with running(tmp_path) as keyless:
        assert keyless.get("/health", Origin=origin).status == 403
        assert keyless.get("/health").status == 200


def test_a_health_check_needs_no_host(tmp_path: Path) -> None:
    with running(tmp_path) as keyless, connect(keyless) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.0 200")


def test_a_key_leaves_slots_to_others() -> None:
    semaphore = FairSemaphore(8)
    assert [semaphore.acquire("a") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [semaphore.acquire("b") for _ in range(3)] == [True, True, False]
    assert semaphore.acquire("c")
    semaphore.release("a")
    assert semaphore.acquire("d")
    alone = FairSemaphore(3)
    assert [alone.acquire("") for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("rate", "bits", "byte_rate", "seconds"),
    [(8, 8, 0x7FFFFFFF, 12_500), (16_000, 16, 32_000, 3.1), (44_100, 16, 8, 1.1), (0, 0, 8000, 12.5)],
)
def test_a_forged_byte_rate_is_not_believed(
    tmp_path: Path, rate: int, bits: int, byte_rate: int, seconds: float
) -> None:
    head = struct.pack("<4sL4s4sLHHLLHH", b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 1, rate, byte_rate, 1, bits)
    spool = Spool(tmp_path / "upload", limit=10**6, too_large=too_large())
    spool.write(head + bytes(100_000 - len(head)))
    assert spool.estimate() == pytest.approx(seconds, rel=0.05)
    spool.discard()


def test_a_new_key_of_an_old_name_does_not_see_its_jobs(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    (old, line), (new, other) = new_key("reception"), new_key("reception")
    file.write_text(line)
    with running(tmp_path / "root", auth__keys_file=str(file)) as service:
        job = service.upload("/v1/jobs", key=old).json["id"]
        file.write_text(other)
        until(lambda: service.get("/v1/models", Authorization=f"Bearer {new}").status == 200)
        assert service.get(f"/v1/jobs/{job}", Authorization=f"Bearer {new}").status == 404
        assert service.get("/v1/jobs", Authorization=f"Bearer {new}").json["data"] == []


def test_a_worker_that_never_gets_ready_is_broken(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    states = []
    for _ in range(4):
        reporter = StatusReporter(store)
        reporter.start()
        reporter.close()
        states.append((store.worker() or {})["state"])
    assert states == ["loading", "loading", "broken", "broken"]
    assert "keeps failing to start: it ends while" in (store.worker() or {})["reason"]
    reporter.set_state("ready")
    assert StatusReporter(store)._facts["state"] == "loading"
