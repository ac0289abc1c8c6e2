"""Calls a client's URL when its job is over: off by default, signed, and never to an address inside the network."""

import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from transcribe import logs
from transcribe.api.errors import bad_request
from transcribe.config import ServiceConfig
from transcribe.jobs.models import Job
from transcribe.jobs.store import Store

LONGEST_URL = 2048
TRIES = 3
TIMEOUT = 10.0  # seconds for each try
LOOK_SECONDS = 1.0

Resolve = Callable[[str, int], list[str]]


def check(config: ServiceConfig, url: str) -> None:
    """Raises ApiError for a URL that would never be called. '' is no callback."""
    if not url:
        return
    if not config.callbacks.enabled:
        raise bad_request("Callbacks are switched off on this server.", "callback_url", "callbacks_disabled")
    if len(url) > LONGEST_URL or not _target(url):
        raise bad_request("callback_url must be an https URL on port 443.", "callback_url", "invalid_url")


def _target(url: str) -> SplitResult | None:
    """The parts of a URL that may be called."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.port in (None, 443) and parts.username is None
    except ValueError:
        return None
    return (
        parts
        if plain and parts.hostname and parts.hostname.isascii() and url.isprintable() and " " not in url
        else None
    )


def addresses(host: str, port: int) -> list[str]:
    """All addresses of a name. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def public_address(host: str, port: int, resolve: Resolve) -> str:
    """An address of the host to connect to. Raises OSError if any of its addresses is not a public one."""
    found = resolve(host, port)
    for address in found:
        parsed = ipaddress.ip_address(address)
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        if not mapped.is_global or mapped.is_multicast:
            raise OSError("the callback's host has an address that is not public")
    if not found:
        raise OSError("the callback's host has no address")
    return found[0]


class PinnedConnection(http.client.HTTPSConnection):
    """HTTPS to an address that was checked, with the certificate of its name: the name is not looked up again."""

    def __init__(self, host: str, address: str) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, 443, timeout=TIMEOUT, context=self._tls)
        self._address = address

    def connect(self) -> None:
        """Connects to the pinned address."""
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def signature(secret: bytes, moment: int, body: bytes) -> str:
    """HMAC-SHA256 over the moment and the body, in hex, so that neither can be replayed or changed."""
    return hmac.new(secret, b"%d." % moment + body, hashlib.sha256).hexdigest()


def deliver(job: Job, secret: bytes, resolve: Resolve = addresses) -> int:
    """Calls the job's URL once; returns the HTTP status. Raises OSError or http.client.HTTPException."""
    parts = _target(job.callback)
    if parts is None or parts.hostname is None:
        raise OSError("the callback's URL cannot be used")
    error = {"message": job.error.message, "code": job.error.code} if job.error else None
    event = {"type": f"transcription.job.{job.status}", "job": {"id": job.id, "status": job.status, "error": error}}
    body, moment = json.dumps(event).encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "transcribe",
        "X-Transcribe-Timestamp": str(moment),
        "X-Transcribe-Signature": f"sha256={signature(secret, moment, body)}",
    }
    connection = PinnedConnection(parts.hostname, public_address(parts.hostname, 443, resolve))
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


class WebhookSender:
    """The thread that makes the calls; what it has not made yet is in the store, so a crash forgets none."""

    def __init__(self, store: Store, secret_file: Path, *, send: Callable[[Job, bytes], int] = deliver) -> None:
        """Raises OSError if the secret cannot be read."""
        self._store = store
        self._secret = secret_file.read_bytes().strip()
        self._send = send
        self._failures: dict[str, tuple[int, float]] = {}  # job → tries, when to try again
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="callbacks", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stop.set()
        self._thread.join()

    def once(self) -> None:
        """Makes the calls that are due."""
        for job in self._store.pending_webhooks():
            tries, due = self._failures.get(job.id, (0, 0.0))
            if time.monotonic() >= due:
                self._call(job, tries + 1)

    def _call(self, job: Job, attempt: int) -> None:
        try:
            status = self._send(job, self._secret)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            logs.failure("callback_failed", error)
            status = 0
        if 200 <= status < 300 or attempt >= TRIES:
            self._store.webhook_done(job.id)
            self._failures.pop(job.id, None)
        else:
            self._failures[job.id] = (attempt, time.monotonic() + 5.0 * 4**attempt)
        logs.event("callback", job=job.id, status=status, attempt=attempt)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.once()
            except Exception as error:
                logs.failure("callbacks_failed", error)
