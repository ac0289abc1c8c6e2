"""The server under clients that are wrong or hostile."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import Api, multipart, running

TRANSCRIBE = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("api"), limits__upload_bytes=100_000) as found:
        yield found


def raw(api: Api, request: bytes) -> bytes:
    """What the server sends back to these bytes, if anything."""
    answer = b""
    with socket.create_connection(("127.0.0.1", int(api.server.effective_port)), 1) as connection:
        connection.sendall(request)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
                connection.settimeout(0.1)
    return answer


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", 404, "not_found"),
        ("GET", "/v1/jobs/*", 404, "job_not_found"),
        ("GET", f"/v1/jobs/{'0' * 32}", 404, "job_not_found"),
        ("GET", f"/v1/jobs/{'0' * 32}/result", 404, "job_not_found"),
        ("GET", "/v1/models/whisper-2", 404, "model_not_found"),
        ("GET", TRANSCRIBE, 405, "method_not_allowed"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("PATCH", "/health", 405, "method_not_allowed"),
        ("POST", TRANSCRIBE, 415, "unsupported_media_type"),
        ("POST", "/v1/jobs", 415, "unsupported_media_type"),
        ("GET", "/v1/jobs?limit=0", 400, "invalid_value"),
        ("GET", "/v1/jobs?limit=1e9", 400, "invalid_value"),
        ("GET", "/v1/jobs?limit=٣", 400, "invalid_value"),
        ("GET", "/v1/jobs?after=x", 404, "job_not_found"),
    ],
)
def test_errors_are_openais(api: Api, method: str, path: str, status: int, code: str) -> None:
    quoted = path.replace("٣", "%D9%A3")
    reply = api.send(method, quoted, b"{}" if method == "POST" else None, {"Content-Type": "application/json"})
    assert (reply.status, reply.code) == (status, code)
    assert reply.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("fields", "content", "status", "code"),
    [
        ({}, None, 400, "missing_required_parameter"),
        ({"model": None}, b"x", 400, "missing_required_parameter"),
        ({"model": ""}, b"x", 400, "missing_required_parameter"),
        ({"model": "../../x"}, b"x", 404, "model_not_found"),
        ({"file": ""}, None, 400, "empty_file"),
        ({}, b"", 400, "empty_file"),
        ({"temperature": "nan"}, b"x", 400, "invalid_value"),
        ({"temperature": "inf"}, b"x", 400, "invalid_value"),
        ({"temperature": "-1"}, b"x", 400, "invalid_value"),
        ({"temperature": "warm"}, b"x", 400, "invalid_value"),
        ({"stream": "maybe"}, b"x", 400, "invalid_value"),
        ({"language": "x" * 10_000}, b"x", 400, "invalid_language_format"),
        ({"response_format": "json\r\nX: y"}, b"x", 400, "invalid_value"),
        ({"timestamp_granularities[]": ["word", "frame"]}, b"x", 400, "invalid_value"),
        ({"keywords[]": ["k"] * 101}, b"x", 400, "invalid_value"),
        ({"keywords[]": ["k" * 201]}, b"x", 400, "invalid_value"),
        ({"include[]": "secrets"}, b"x", 400, "invalid_value"),
        ({"chunking_strategy": "manual"}, b"x", 400, "invalid_value"),
        ({"chunking_strategy[type]": "client_vad"}, b"x", 400, "invalid_value"),
        ({"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "2"}, b"x", 400, "invalid_value"),
        ({"chunking_strategy[threshold]": "0.5"}, b"x", 400, "invalid_value"),
        ({"prompt": "p" * 2_000_000}, b"x", 413, "request_too_large"),
        ({f"f{n}": "x" for n in range(400)}, b"x", 413, "request_too_large"),
        ({}, b"x" * 100_001, 413, "file_too_large"),
        ({}, b"x" * 30_000_000, 413, "request_too_large"),
    ],
)
def test_bad_requests(api: Api, fields: dict[str, Any], content: bytes | None, status: int, code: str) -> None:
    body, content_type = multipart({"model": "whisper-1", **fields}, content)
    reply = api.send("POST", TRANSCRIBE, body, {"Content-Type": content_type})
    assert (reply.status, reply.code) == (status, code)
    assert list(api.config.temp.iterdir()) == [], "something of a refused request was kept"


HEAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=B\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 9000 + b"\r\n",
        b"GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + FORM + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        HEAD + FORM + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nx",
        HEAD + FORM + b"Content-Length: 5\r\n\r\n--B\r\n",
        HEAD + FORM + b"Content-Length: 7\r\n\r\n--B--\r\n",
        HEAD + b"Content-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Type: multipart/form-data; boundary=" + b"b" * 9000 + b"\r\nContent-Length: 3\r\n\r\nabc",
        HEAD
        + FORM
        + b'Content-Length: 58\r\n\r\n--B\r\nContent-Disposition: form-data; name="file"; filename="\r\n\r\n',
        b"GET /v1/jobs/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/jobs/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models/..%2f..%2f HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET //static/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/jobs?limit=%F0%28 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost:\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"TRACE /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xc3\xa5\xc3\xa4 /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nno colon here\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: localhost\n\n",
        b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: user:password@localhost\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        HEAD + b"Content-Length: 0x5\r\n\r\nabcde",
        HEAD + b"Transfer-Encoding: chunked\r\n" + FORM + b"\r\n5;x=y\r\n--B\r\n\r\n0\r\nTrailer: x\r\n\r\n",
        HEAD + b"Content-Type: multipart/mixed; boundary=B\r\nContent-Length: 7\r\n\r\n--B--\r\n",
        HEAD + b"Content-Type: multipart/form-data; boundary=B; charset=utf-7\r\nContent-Length: 7\r\n\r\n--B--\r\n",
    ],
)
def test_hostile_requests_are_never_the_servers_fault(api: Api, request_bytes: bytes) -> None:
    answer = raw(api, request_bytes)
    if answer:
        status = int(answer.split(b" ", 2)[1])
        assert status < 500 or status == 501, answer[:300]
        assert b"Traceback" not in answer
        head, _, body = answer.partition(b"\r\n\r\n")
        if status >= 400 and b"chunked" not in head:
            assert set(json.JSONDecoder().raw_decode(body.decode())[0]) == {"error"}
    assert api.get("/health").status == 200


def test_an_unexpected_exception_shows_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret path /opt/x")

    monkeypatch.setattr(api.store, "jobs", broken)
    reply = api.get("/v1/jobs")
    assert (reply.status, reply.code) == (500, "internal_error")
    assert b"secret" not in reply.body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "192.168.1.7", "app.localhost"])
def test_hosts_that_are_no_names_of_others(api: Api, host: str) -> None:
    assert api.get("/health", Host=host).status == 200


def test_a_page_elsewhere_cannot_use_an_open_server(api: Api) -> None:
    assert api.get("/v1/jobs", Host="rebound.example").code == "host_not_allowed"
    assert api.get("/v1/jobs", Origin="https://evil.example").code == "origin_not_allowed"
    assert api.get("/v1/jobs", Origin="null").code == "origin_not_allowed"
    assert api.get("/v1/jobs", Origin=api.url).status == 200
    assert "Access-Control-Allow-Origin" not in api.get("/health", Origin=api.url).headers


def test_an_allowed_origin_gets_its_headers(tmp_path: Path) -> None:
    origin = "https://app.example"
    with running(tmp_path, cors__origins=[origin]) as api:
        reply = api.send("OPTIONS", TRANSCRIBE, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (204, origin)
        assert api.get("/v1/models", Origin=origin).headers["Access-Control-Allow-Origin"] == origin
        assert api.get("/v1/models", Origin="https://other.example").status == 403
