"""What a machine with an instance profile learns at 169.254.169.254: the instance metadata service, version 2.

Each machine has a socket of its own in its folder, by which the daemon knows who asks; relay.py leads to it.
"""

import json
import os
import secrets
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from .roles import RoleSessions

TOKEN = "/latest/api/token"  # noqa: S105 - a path
DATA = "/latest/meta-data/"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
MOST_SECONDS = 21_600  # that a token is good for: AWS' own

Notices = Callable[[str], Mapping[str, str]]  # what a machine is told of its group and of its end, by path


@dataclass(frozen=True)
class Identity:
    """What a machine is told of itself."""

    machine: str
    region: str
    role: str
    sessions: RoleSessions
    notices: Notices

    def about(self, path: str) -> str:
        """What lies at a path below meta-data; empty if nothing does."""
        plain = {
            "instance-id": self.machine,
            "placement/region": self.region,
            "placement/availability-zone": f"{self.region}a",
            "iam/security-credentials": self.role,
            **self.notices(self.machine),
        }
        path = path.rstrip("/")
        return self._keys() if path == f"iam/security-credentials/{self.role}" else plain.get(path, "")

    def _keys(self) -> str:
        given = self.sessions.give(self.machine)
        now, end = (datetime.fromtimestamp(when, UTC) for when in (time.time(), given.expires))
        return json.dumps({
            "Code": "Success",
            "LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "Type": "AWS-HMAC",
            "AccessKeyId": given.credentials.access_key,
            "SecretAccessKey": given.credentials.secret_key,
            "Token": given.credentials.token,
            "Expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}",
        })  # fmt: skip


class Metadata:
    """The services of all machines."""

    def __init__(self, region: str, sessions: RoleSessions, notices: Notices) -> None:
        self.sessions = sessions
        self._region, self._notices = region, notices
        self._services: dict[str, _Service] = {}

    def serve(self, machine_id: str, role: str, socket: Path) -> None:
        """Answer one machine at its socket, until `end`. Raises OSError."""
        about = Identity(machine_id, self._region, role, self.sessions, self._notices)
        self._services[machine_id] = _Service(about, socket)

    def end(self, machine_id: str) -> None:
        """A machine has ended: it is answered no more, and its keys are good for nothing."""
        self.sessions.end(machine_id)
        if service := self._services.pop(machine_id, None):
            service.close()


class _Service(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, about: Identity, socket: Path) -> None:
        self.about = about
        self._path = socket
        self._tokens: dict[str, float] = {}  # and until when they are good
        folder = os.open(socket.parent, os.O_PATH)
        try:  # the whole path may be longer than the 107 bytes that a socket's address has
            super().__init__(f"/proc/self/fd/{folder}/{socket.name}", _Handler)
        finally:
            os.close(folder)
        threading.Thread(target=self.serve_forever, args=(0.5,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def make_token(self, seconds: int) -> str:
        now = time.monotonic()
        self._tokens = {token: end for token, end in self._tokens.items() if end > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = now + seconds
        return token

    def knows(self, token: str) -> bool:
        return self._tokens.get(token, 0.0) > time.monotonic()


class _Handler(BaseHTTPRequestHandler):
    server: _Service

    def do_PUT(self) -> None:
        asked = self.headers.get(TTL, "")
        good = asked.isascii() and asked.isdigit() and 1 <= int(asked) <= MOST_SECONDS
        if self.path != TOKEN:
            self._answer(404)
        elif "X-Forwarded-For" in self.headers:  # a proxy on the machine would ask for somebody else
            self._answer(403)
        elif not good:
            self._answer(400)
        else:
            self._answer(200, self.server.make_token(int(asked)), **{TTL: asked})

    def do_GET(self) -> None:
        found = self.server.about.about(self.path.removeprefix(DATA)) if self.path.startswith(DATA) else ""
        if not self.server.knows(self.headers.get("X-aws-ec2-metadata-token", "")):
            self._answer(401)
        else:
            self._answer(200 if found else 404, found)

    def _answer(self, status: int, text: str = "", **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Do not log every request."""
