"""The service of this machine, as a client on it sees it."""

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

SHORT = 10  # seconds for a response that needs no model
LONG = 3600  # seconds for a transcript
OWN_KEY = "this-machine"  # the name of the key that exists only while the machine checks itself
VALID = 300  # seconds after which that key ends by itself; it is asked for when the request begins
REREAD = 1.2  # seconds after which the service has surely read the keys again

__pillar__: dict[str, Any]
__salt__: dict[str, Any]


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
    """The headers that authorize this machine. Where keys are required, a random one is valid while this is open.

    It lies in a file of its own, which ends by itself: the keys file is the operator's, and is not touched.
    """
    pillar = __pillar__["transcribe"]
    if not pillar["auth"]["keys_file"]:
        yield {}
        return
    name, key = secrets.token_hex(8), secrets.token_urlsafe(32)
    line = f"{OWN_KEY} {hashlib.sha256(key.encode()).hexdigest()} {time.time() + VALID:.0f}\n"
    group = __salt__["file.group_to_gid"](pillar["group"])
    with _private_folder(pillar["auth"]["temporary_keys"], group) as folder:
        _remove_ended(folder)
        try:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=folder)
            with os.fdopen(file, "w") as opened:
                os.fchown(file, -1, group)
                opened.write(line)
            time.sleep(REREAD)
            yield {"Authorization": f"Bearer {key}"}
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _private_folder(path: str, group: int) -> Iterator[int]:
    """The descriptor of a folder that only this user may write and `group` may read. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        Path(path).mkdir(mode=0o750)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to another user: remove it")
        os.fchown(folder, -1, group)
        os.fchmod(folder, 0o750)
        yield folder
    finally:
        os.close(folder)


def _remove_ended(folder: int) -> None:
    """Removes keys that a killed check left behind; nobody knows them, and they no longer count."""
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > VALID:
                os.unlink(name, dir_fd=folder)


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
