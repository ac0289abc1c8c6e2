"""The service of this machine, as a client on it sees it."""

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

SHORT = 10  # seconds for a response that needs no model
LONG = 3600  # seconds for a transcript
OWN_KEY = "this-machine"  # the name of the key that exists only while the machine checks itself
REREAD = 1.2  # seconds after which the service has surely read the keys again

__pillar__: dict[str, Any]


def get(path: str) -> dict[str, Any]:
    """The `status` (0: no response) and `body` of a GET; an HTTP error is a response as well."""
    return _send("GET", path, SHORT)


def transcribe(path: str, language: str) -> dict[str, Any]:
    """Send a file as a client does. Returns its `text`, `audio_seconds` and the `seconds` it took, or an `error`."""
    fields = {"model": __pillar__["transcribe"]["model"]["id"], "response_format": "verbose_json"}
    if language:
        fields["language"] = language
    with _authorized() as headers, Path(path).open("rb") as file:
        files = {"file": (f"audio{Path(path).suffix}", file)}
        began = time.monotonic()
        response = _send("POST", "/v1/audio/transcriptions", LONG, headers=headers, data=fields, files=files)
        seconds = round(time.monotonic() - began, 3)
    if response["status"] != 200:
        return {"error": f"HTTP {response['status']}: {' '.join(response['body'].split())[:300]}"}
    result = json.loads(response["body"])
    return {"text": result["text"].strip(), "audio_seconds": result.get("duration"), "seconds": seconds}


def _address() -> str:
    """Where the service listens, seen from this machine: a wildcard address answers on loopback."""
    pillar = __pillar__["transcribe"]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(pillar["host"], pillar["host"])  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{pillar['port']}"


@contextlib.contextmanager
def _authorized() -> Iterator[dict[str, str]]:
    """The headers that authorize this machine. Where keys are required, a random one exists while this is open.

    If this process is killed, the key's digest stays in the file until the next check; nobody knows the key itself.
    """
    name = __pillar__["transcribe"]["auth"]["keys_file"]
    if not name:
        yield {}
        return
    path, key = Path(name), secrets.token_urlsafe(32)
    others = [line for line in path.read_text().splitlines() if not line.startswith(f"{OWN_KEY} ")]
    try:
        path.write_text("\n".join([*others, f"{OWN_KEY} {hashlib.sha256(key.encode()).hexdigest()}"]) + "\n")
        time.sleep(REREAD)
        yield {"Authorization": f"Bearer {key}"}
    finally:
        path.write_text("".join(f"{line}\n" for line in others))


def _send(method: str, path: str, seconds: int, **content: Any) -> dict[str, Any]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy, no .netrc
        try:
            response = session.request(method, _address() + path, timeout=seconds, **content)
        except requests.Timeout:
            return {"status": 0, "body": f"no response within {seconds} s"}
        except requests.ConnectionError:
            return {"status": 0, "body": f"no connection to {_address()}"}
    return {"status": response.status_code, "body": response.content.decode(errors="replace")}
