"""What browsers, load balancers and proxies send: other origins, odd paths, prefixes."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import Api, multipart, running

TRANSCRIBE = "/v1/audio/transcriptions"
ORIGIN = "https://app.example"
STAINLESS = "authorization,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-runtime,x-stainless-timeout"
HEAD = f"POST {TRANSCRIBE} HTTP/1.1\r\nHost: a.example\r\nOrigin: {ORIGIN}\r\n".encode()
FORM = b"Content-Type: multipart/form-data; boundary=B\r\n"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, key: tuple[str, Path]) -> Iterator[Api]:
    changes: dict[str, Any] = {
        "auth__keys_file": str(key[1]),
        "cors__origins": [ORIGIN],
        "limits__upload_bytes": 100_000,
    }
    with running(tmp_path_factory.mktemp("api"), **changes) as found:
        yield found


@pytest.fixture(scope="module")
def keyed(key: tuple[str, Path]) -> bytes:
    return f"Authorization: Bearer {key[0]}\r\n".encode()


def raw(api: Api, request: bytes, *, half_close: bool = False) -> tuple[int, dict[str, str]]:
    """The status and the headers, in lower case, of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", int(api.server.effective_port)), 20) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
            answer += data
    lines = answer.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:])


REFUSED_BY_THE_SERVER: dict[str, tuple[bytes, int]] = {
    "no key": (HEAD + FORM + b"Content-Length: 10\r\n\r\n", 401),
    "too large": (HEAD + b"KEY" + FORM + b"Content-Length: 99999999\r\n\r\n", 413),
    "no length": (HEAD + b"KEY" + FORM + b"\r\n", 411),
    "length is no number": (HEAD + b"KEY" + FORM + b"Content-Length: x\r\n\r\n", 400),
    "unknown coding": (HEAD + b"KEY" + FORM + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "bad chunk": (HEAD + b"KEY" + FORM + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", 400),
    "large headers": (HEAD + b"KEY" + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    "a bad header": (HEAD + b"KEY" + b"no colon\r\n\r\n", 400),
    "a bad header first": (HEAD.replace(b"Host:", b"no colon\r\nHost:") + b"\r\n", 400),
    "a path without /v1": (HEAD.replace(b"/v1/", b"/") + b"Content-Length: 50000\r\n\r\n", 404),
    "a body where none belongs": (
        HEAD.replace(TRANSCRIBE.encode(), b"/health") + b"Content-Length: 50000\r\n\r\n",
        413,
    ),
}


@pytest.mark.parametrize("name", REFUSED_BY_THE_SERVER)
def test_a_page_can_read_why_the_server_refused(api: Api, keyed: bytes, name: str) -> None:
    request, status = REFUSED_BY_THE_SERVER[name]
    found, headers = raw(api, request.replace(b"KEY", keyed))
    assert (found, headers["access-control-allow-origin"], headers["vary"]) == (status, ORIGIN, "origin")
    assert "x-request-id" in headers["access-control-expose-headers"]
    _, elsewhere = raw(api, request.replace(b"KEY", keyed).replace(b"app.example", b"evil.example"))
    assert "access-control-allow-origin" not in elsewhere


@pytest.mark.parametrize(
    "path", [TRANSCRIBE, f"/{TRANSCRIBE}", f"{TRANSCRIBE}/", "/v1//models", "/v1/jobs", f"/v1/jobs/{'0' * 32}"]
)
@pytest.mark.parametrize("method", ["POST", "GET", "PATCH", "DELETE"])
def test_a_preflight_asks_for_no_key(api: Api, path: str, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": STAINLESS}
    reply = api.send("OPTIONS", path, headers={"Origin": ORIGIN, **asked})
    assert reply.status == 204
    assert reply.headers["Access-Control-Allow-Headers"] == STAINLESS
    assert method in reply.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("//v1/models", 200),
        ("/v1/models/", 200),
        ("//v1//models//", 200),
        ("/v1/models/whisper-1/", 200),
        ("/v1/models//KBLab//kb-whisper-small", 200),
        ("/v1/jobs/", 200),
        ("//v1/jobs/?limit=5", 200),
        (f"/v1/jobs/{'0' * 32}/", 404),
        ("/health/", 200),
        ("//ready", 200),
        ("/openapi.json/", 200),
        ("//", 200),
    ],
)
def test_slashes_too_many(api: Api, key: tuple[str, Path], path: str, status: int) -> None:
    assert api.get(path, Authorization=f"Bearer {key[0]}").status == status
    assert api.get(path).status == (401 if "v1" in path else status)


def test_uploads_and_slashes_too_many(api: Api, key: tuple[str, Path]) -> None:
    for number, path in enumerate((f"/{TRANSCRIBE}", f"{TRANSCRIBE}/", f"/{TRANSCRIBE}//", "//v1/audio//translations")):
        assert api.upload(path, b"slashes %d" % number, key=key[0]).status == 200
        assert api.upload(path, b"slashes %d" % number).status == 401
    assert api.upload("//v1/jobs/", b"a job", key=key[0]).headers["Location"].startswith("/v1/jobs/")


@pytest.mark.parametrize(
    "path", ["/speech/v1/models", "/v1/models", "//speech//v1/models/", "/speech/health", "/speech/"]
)
@pytest.mark.parametrize("prefix", ["/speech", "/speech/"])
def test_below_a_prefix(api: Api, key: tuple[str, Path], path: str, prefix: str) -> None:
    headers = {"X-Forwarded-Prefix": prefix}
    assert api.get(path, Authorization=f"Bearer {key[0]}", **headers).status == 200
    assert api.get(path, **headers).status == (401 if "v1" in path else 200)


@pytest.mark.parametrize(
    "prefix", ["speech", "//evil.example", "/a b", "/../v1", "/speech\u00e4", "/", "https://e.example"]
)
def test_a_prefix_that_is_none(api: Api, key: tuple[str, Path], prefix: str) -> None:
    assert api.get("/v1/models", Authorization=f"Bearer {key[0]}", **{"X-Forwarded-Prefix": prefix}).status == 200
    assert api.get("/v1/models", **{"X-Forwarded-Prefix": prefix}).status == 401
    assert api.get("/", **{"X-Forwarded-Prefix": prefix}).status == 200


def test_a_prefix_opens_no_door(api: Api) -> None:
    for prefix, path in {"/v1": "/v1/v1/models", "/x": "/x/v1/models", "/v1/models": "/v1/models/v1/models"}.items():
        assert api.get(path, **{"X-Forwarded-Prefix": prefix}).status == 401
    assert raw(api, b"GET /speech HTTP/1.0\r\nX-Forwarded-Prefix: /speech\r\n\r\n")[1]["location"] == "/speech/"


def test_places_of_things_below_a_prefix(api: Api, key: tuple[str, Path]) -> None:
    authorized = {"Authorization": f"Bearer {key[0]}", "X-Forwarded-Prefix": "/speech"}
    body, content_type = multipart({"model": "whisper-1"}, b"below a prefix")
    reply = api.send("POST", "/v1/jobs", body, {**authorized, "Content-Type": content_type})
    assert reply.headers["Location"] == f"/speech/v1/jobs/{reply.json['id']}"
    assert api.get("/openapi.json", **authorized).json["servers"] == [{"url": "/speech"}]


@pytest.mark.parametrize("path", ["/health", "/ready", "//health", "/health/", "/metrics"])
def test_checks_of_load_balancers(api: Api, path: str) -> None:
    for request in (f"GET {path} HTTP/1.0\r\n\r\n", f"HEAD {path} HTTP/1.0\r\n\r\n", f"GET {path} HTTP/1.1\r\n\r\n"):
        assert raw(api, request.encode())[0] == 200
