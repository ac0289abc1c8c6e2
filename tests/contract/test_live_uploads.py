"""Uploads at the pace of speech, while it is spoken; and uploads that stop."""

import json
import socket
import time
from collections.abc import Iterator

import pytest
from support.api_server_fixture import Api, running
from transcribe.api import wsgi

pytestmark = pytest.mark.slow

FIELDS = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
FILE = b'--B\r\nContent-Disposition: form-data; name="file"; filename="live.webm"\r\n\r\n'
END = b"\r\n--B--\r\n"
HEAD = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
TRANSCRIBE = b"/v1/audio/transcriptions"


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(wsgi, "BODY_SECONDS", 0.5)  # a minute, in small
    with running(tmp_path_factory.mktemp("live"), limits__audio_seconds=2) as found:
        yield found


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def connect(api: Api) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(api.server.effective_port)), timeout=15)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    received = b""
    while data := connection.recv(65536):
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def speak(api: Api, connection: socket.socket, seconds: float, size: int, pause: float) -> bool:
    """Sends `size` bytes every `pause` seconds; whether the server took them all. It looks for late ones each time."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            connection.sendall(chunk(b"s" * size))
            api.server.next_channel_cleanup = 0
            time.sleep(pause)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "size", "pause"),
    [
        (TRANSCRIBE, 200, 0.1),  # 16 kbit/s
        (TRANSCRIBE, 40, 0.02),  # 16 kbit/s, a packet at a time
        (TRANSCRIBE, 400, 0.2),
        (TRANSCRIBE, 60, 0.1),  # AMR at 4.75 kbit/s
        (TRANSCRIBE, 320, 0.1),  # 24 kbit/s and more
        (b"/v1/audio/translations", 200, 0.1),
        (b"/v1/jobs", 200, 0.1),
        (b"/v1/jobs", 800, 0.4),  # a recorder that collects
    ],
)
def test_speech_comes_as_it_is_spoken(api: Api, path: bytes, size: int, pause: float) -> None:
    with connect(api) as connection:
        connection.sendall(HEAD % path + b"Connection: close\r\n" + CHUNKED + chunk(FIELDS + FILE))
        assert speak(api, connection, 3.0, size, pause)
        connection.sendall(chunk(END) + b"0\r\n\r\n")
        status, _ = answer(connection)
    assert status == (202 if path.endswith(b"jobs") else 200)


@pytest.mark.parametrize(("size", "pause"), [(1, 0.05), (10, 0.1), (20, 0.1), (1, 0.01), (30, 0.2)])
def test_a_trickle_is_no_speech(api: Api, size: int, pause: float) -> None:
    with connect(api) as connection:
        connection.sendall(HEAD % TRANSCRIBE + b"Connection: close\r\n" + CHUNKED + chunk(FIELDS + FILE))
        assert not speak(api, connection, 6.0, size, pause)


def test_speech_ends_with_the_longest_recording(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(HEAD % TRANSCRIBE + b"Connection: close\r\n" + CHUNKED + chunk(FIELDS + FILE))
        assert not speak(api, connection, 8.0, 200, 0.1)


STOPPED: dict[str, bytes] = {
    "chunked, in the file": CHUNKED + chunk(FIELDS + FILE + b"speech"),
    "chunked, in a chunk": CHUNKED + chunk(FIELDS + FILE + b"speech")[:-5],
    "chunked, in a field": CHUNKED + chunk(FIELDS[:30]),
    "chunked, after the form": CHUNKED + chunk(FIELDS + FILE + b"speech" + END),
    "with a length": b"Content-Length: 5000\r\n\r\n" + FIELDS + FILE + b"speech",
    "with a length, a byte short": b"Content-Length: %d\r\n\r\n" % len(FIELDS + FILE + END)
    + (FIELDS + FILE + END)[:-1],
}


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize("stalls", [False, True])
def test_a_client_that_stops_is_told(api: Api, name: str, stalls: bool) -> None:
    with connect(api) as connection:
        connection.sendall(HEAD % TRANSCRIBE + STOPPED[name])
        if stalls:
            time.sleep(0.8)
            api.server.next_channel_cleanup = 0
            with connect(api) as other:  # turns the server's loop
                other.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                answer(other)
        else:
            connection.shutdown(socket.SHUT_WR)
        status, body = answer(connection)
    assert (status, json.loads(body)["error"]["code"]) == (408 if stalls else 400, "upload_cut_off")
    assert "cut off" in json.loads(body)["error"]["message"]
    assert api.store.jobs("") == []


def test_a_last_chunk_without_the_forms_end_is_told(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(HEAD % TRANSCRIBE + b"Connection: close\r\n" + CHUNKED)
        connection.sendall(chunk(FIELDS + FILE + b"speech") + b"0\r\n\r\n")
        status, body = answer(connection)
    assert status == 400
    assert b"cut off" in body
