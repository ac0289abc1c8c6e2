"""Calls a client's URL when its job is over: off by default, signed, and never to an address inside the network."""

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from transcribe import logs
from transcribe.api.errors import bad_request
from transcribe.config import ServiceConfig
from transcribe.jobs.models import Job
from transcribe.jobs.store import Store

LONGEST_URL = 2048
TRIES = 3
TIMEOUT = 10.0  # seconds to connect, and again to send the call and read the answer's status
CALLERS = 4  # so that a receiver that takes its time keeps only its own calls waiting
SHORTEST_SECRET = 16  # bytes
# Ranges that lead back into IPv4 or into a site, whatever they look like: NAT64, 6to4 and its relays, Teredo,
# IPv4-compatible and site-local addresses (RFC 6052, 8215, 3056, 7526, 4380, 4291, 3879).
TUNNELS = tuple(
    ipaddress.ip_network(name)
    for name in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "192.88.99.0/24", "2001::/32", "::/96", "fec0::/10")
)
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
    if not all(is_public(address) for address in found):
        raise OSError("the callback's host has an address that is not public")
    if not found:
        raise OSError("the callback's host has no address")
    return found[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also when it only carries another address."""
    parsed = ipaddress.ip_address(address)
    inner = getattr(parsed, "ipv4_mapped", None) or parsed
    tunnel = any(inner in network for network in TUNNELS if network.version == inner.version)
    return bool(inner.is_global and not inner.is_multicast and not inner.is_reserved and not tunnel)


def read_secret(path: Path) -> bytes:
    """The key that calls are signed with. Raises OSError, or ValueError for one that anybody could guess."""
    secret = path.read_bytes().strip()
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(f"{path} has {len(secret)} bytes; put at least {SHORTEST_SECRET} in it: openssl rand -hex 32")
    return secret


class PinnedConnection(http.client.HTTPSConnection):
    """HTTPS to an address that was checked, with the certificate of its name: the name is not looked up again."""

    def __init__(self, host: str, address: str) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, 443, timeout=TIMEOUT, context=self._tls)
        self._address = address

    def connect(self) -> None:
        """Connects to the pinned address."""
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)


@contextmanager
def deadline(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Shuts the connection down if the block takes longer; a socket's own limit begins anew with each byte."""
    timer = threading.Timer(seconds, shut_down, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def shut_down(connection: socket.socket) -> None:
    """Ends a connection from another thread, below its TLS layer, which is not made for that."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


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
        "Idempotency-Key": job.id,
        "X-Transcribe-Timestamp": str(moment),
        "X-Transcribe-Signature": f"sha256={signature(secret, moment, body)}",
    }
    connection = PinnedConnection(parts.hostname, public_address(parts.hostname, 443, resolve))
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.connect()
        with deadline(connection.sock, TIMEOUT):
            connection.sock.do_handshake()
            connection.request("POST", path, body, headers)
            return connection.getresponse().status
    finally:
        connection.close()


class WebhookSender:
    """The threads that make the calls; what they have not made yet is in the store, so a crash forgets none."""

    def __init__(self, store: Store, secret_file: Path, *, send: Callable[[Job, bytes], int] = deliver) -> None:
        """Raises OSError or ValueError if the secret cannot be used."""
        self._store = store
        self._secret = read_secret(secret_file)
        self._send = send
        self._failures: dict[str, tuple[int, float]] = {}  # job → tries, when to try again
        self._under_way: set[str] = set()
        self._lock = threading.Lock()  # over both
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"webhooks-{number}", daemon=True) for number in range(CALLERS)
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends them. A call that is under way is not waited for: the next start makes it again."""
        self._stop.set()

    def once(self) -> None:
        """Makes the calls that are due, except those that another thread is making."""
        while (job := self._next()) is not None:
            try:
                self._call(job)
            finally:
                with self._lock:
                    self._under_way.discard(job.id)

    def _next(self) -> Job | None:
        with self._lock:
            for job in self._store.pending_webhooks():
                _tries, due = self._failures.get(job.id, (0, 0.0))
                if job.id not in self._under_way and time.monotonic() >= due and not self._stop.is_set():
                    self._under_way.add(job.id)
                    return job
        return None

    def _call(self, job: Job) -> None:
        self._store.sync()  # what is told may not be taken back by a power cut
        try:
            status = self._send(job, self._secret)
        except (OSError, http.client.HTTPException, ValueError) as error:
            logs.failure("webhook_failed", error)
            status = 0
        with self._lock:
            attempt = self._failures.get(job.id, (0, 0.0))[0] + 1
            over = 200 <= status < 300 or attempt >= TRIES
            if over:
                self._failures.pop(job.id, None)
            else:
                self._failures[job.id] = (attempt, time.monotonic() + 5.0 * 4**attempt)
        if over:
            self._store.webhook_done(job.id)
        logs.event("webhook", job=job.id, status=status, attempt=attempt)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.once()
            except Exception as error:
                logs.failure("webhooks_failed", error)
