"""The service of this machine, as a client on it sees it."""

import contextlib
import hashlib
import json
import secrets
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BRIEF = 10  # seconds for an answer that needs no model
LONG = 3600  # seconds for a transcript
VISITOR = "this-machine"  # the name of the key that exists only while the machine looks at itself
REREAD = 1.2  # seconds after which the service has surely read the keys again

__pillar__: dict[str, Any]


def get(path: str) -> dict[str, Any]:
    """The `status` (0: no answer) and `body` of a GET; an error is an answer as well."""
    return _ask(urllib.request.Request(_address() + path), BRIEF)


def transcribe(path: str, language: str) -> dict[str, Any]:
    """Send a file as a client does. Returns its `text`, `audio_seconds` and the `seconds` it took, or an `error`."""
    fields = {"model": __pillar__["transcribe"]["model"]["id"], "response_format": "verbose_json"}
    if language:
        fields["language"] = language
    boundary = uuid.uuid4().hex
    body = _multipart(boundary, fields, Path(path))
    with _authorized() as headers:
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        request = urllib.request.Request(f"{_address()}/v1/audio/transcriptions", data=body, headers=headers)
        began = time.monotonic()
        answer = _ask(request, LONG)
        seconds = round(time.monotonic() - began, 3)
    if answer["status"] != 200:
        return {"error": f"HTTP {answer['status']}: {_line(answer['body'])}"}
    told = json.loads(answer["body"])
    return {"text": told["text"].strip(), "audio_seconds": told.get("duration"), "seconds": seconds}


def _address() -> str:
    """Where the service listens, seen from this machine: a wildcard address answers on loopback."""
    pillar = __pillar__["transcribe"]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(pillar["host"], pillar["host"])  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{pillar['port']}"


@contextlib.contextmanager
def _authorized() -> Iterator[dict[str, str]]:
    """The headers that let this machine in. Where keys are asked for, a random one is added for just as long.

    If this is killed, its digest stays behind until the next look, and nobody has the key to it.
    """
    name = __pillar__["transcribe"]["auth"]["keys_file"]
    if not name:
        yield {}
        return
    path, key = Path(name), secrets.token_urlsafe(32)
    others = [line for line in path.read_text().splitlines() if not line.startswith(f"{VISITOR} ")]
    try:
        path.write_text("\n".join([*others, f"{VISITOR} {hashlib.sha256(key.encode()).hexdigest()}"]) + "\n")
        time.sleep(REREAD)
        yield {"Authorization": f"Bearer {key}"}
    finally:
        path.write_text("".join(f"{line}\n" for line in others))


def _multipart(boundary: str, fields: dict[str, str], path: Path) -> bytes:
    """A form (RFC 7578) of these fields and one file."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    text = "".join(f'{head}{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    file = f'{head}file"; filename="audio{path.suffix}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return (text + file).encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()


def _ask(request: urllib.request.Request, seconds: int) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by way of a proxy
    try:
        with opener.open(request, timeout=seconds) as answer:
            return {"status": answer.status, "body": answer.read().decode(errors="replace")}
    except urllib.error.HTTPError as error:
        with error:
            return {"status": error.code, "body": error.read().decode(errors="replace")}
    except OSError as error:
        return {"status": 0, "body": str(getattr(error, "reason", error))}


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
