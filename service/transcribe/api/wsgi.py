"""waitress with limits: enough threads that /health never waits, OpenAI's errors also from the server itself,
deadlines for clients that trickle their bytes, and a stop that lets running requests finish."""

import contextlib
import http
import json
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import Error

from transcribe import logs
from transcribe.api.access import Access
from transcribe.api.app import ASKING_REQUESTS, STORING_REQUESTS, context_of
from transcribe.api.errors import FULL, ApiError, busy, disk_full
from transcribe.api.paths import clean_path, clean_prefix
from transcribe.api.request_parser import RefusedError, RequestParser
from transcribe.api.upload import ROOM_FOR_FIELDS
from transcribe.config import ServiceConfig
from transcribe.jobs import activity

SPARE_THREADS = 8  # for short requests, besides those that take a slot and may take long
CONNECTIONS = 1000  # at once; a further one replaces an idle one
CONNECTIONS_OF_ADDRESS = 400
HEADER_BYTES = 32 * 1024
RECEIVED_BYTES = 256 * 1024  # at once, of a body: a clip comes in few rounds of the loop that all connections share
FIRST_BYTE_SECONDS = 5.0  # a new connection must have begun its request by then
HEADER_SECONDS = 20.0  # and the request's headers must be here by then
BODY_SECONDS = 60.0  # and its body too, plus a second for each SLOWEST_RATE bytes of it
SLOWEST_RATE = 4096  # bytes a second
# Bytes a second; so slowly a body may come for as long as a recording may be: speech while it is spoken. The slowest
# codec that is in use, AMR at 4.75 kbit/s, needs 594.
LIVE_RATE = 500
UPLOADS_OF_KEY = 4  # unfinished uploads of a key may hold so many times the largest upload on disk
LINGER_SECONDS = 10.0  # how long a refused client may go on sending
LINGER_BYTES = 64 * 1024 * 1024  # and how much
NO_BODY = "Nothing at this URL takes a body; GET /openapi.json lists what this server has."
NOT_FOUND = "There is nothing at this URL: the API's paths begin with /v1. GET /openapi.json lists them."
CODES = {400: "bad_request", 413: "request_too_large", 431: "headers_too_large", 501: "not_implemented"}


class JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers requests that never reach the application, such as one with too large a body, as it would."""

    def execute(self) -> None:
        """Writes the error and closes the connection."""
        error = _api_error(self.request.error)
        body = json.dumps(error.body()).encode()
        self.status = f"{error.status} {self.request.error.reason}"
        self.response_headers.extend(_headers(self.channel.server.access, self.request, error).items())
        self.set_close_on_finish()
        self.channel.refused = True
        self.content_length = len(body)
        self.write(body)


def _headers(access: Access, request: Any, error: ApiError) -> dict[str, str]:
    """Those of an error that never reached the application."""
    headers = {"Content-Type": "application/json", "X-Request-Id": f"req_{uuid4().hex}", **error.headers}
    return headers | access.cors_headers(request.headers.get("ORIGIN"), None)


def _api_error(found: Error) -> ApiError:
    """OpenAI's form of an error that the server itself found."""
    if isinstance(found, RefusedError):
        return found.api_error
    if found.code == InsufficientStorageError.code:
        return disk_full()
    message = "The request is larger than this server accepts." if found.code == 413 else f"{found.reason}."
    return ApiError(found.code, message, code=CODES.get(found.code))


class InsufficientStorageError(Error):  # type: ignore[misc]
    """The request could not be kept while it came in."""

    code = 507
    reason = "Insufficient Storage"


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that records when its current request began to arrive.

    After a refusal it stays half open for a while and reads on: closed at once, the client that is still sending would
    see a broken connection instead of the reason (https://www.rfc-editor.org/rfc/rfc9112#section-9.6).
    """

    error_task_class = JsonErrorTask
    request: Any = None
    began: float | None = None
    silent = True  # nothing has come in on it yet
    refused = False
    too_late = False  # it is closed for being so
    lingering: float | None = None  # since when
    ignored = 0  # bytes read since then

    def parser_class(self, adjustments: Adjustments) -> RequestParser:
        """Makes the parser of the next request."""
        return RequestParser(adjustments, self.server.admit)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.opened = time.monotonic()
        super().__init__(*arguments, **options)

    def received(self, data: bytes) -> bool:
        """Parses bytes; a full disk is answered like any other error."""
        self.silent = False
        try:
            taken = bool(super().received(data))
        except OSError as error:
            if error.errno not in FULL or self.request is None:
                raise
            self.request.error, self.request.completed = InsufficientStorageError(""), True
            with self.requests_lock:
                self.requests.append(self.request)
                self.request = None
                self.server.add_task(self)
            taken = True
        self.began = (self.began or time.monotonic()) if self.request else None
        return taken

    def handle_read(self) -> None:
        """Reads bytes, or discards them after a refusal."""
        if self.lingering is None:
            super().handle_read()
            return
        self.ignored += len(self.recv(self.adj.recv_bytes))  # closes the channel at the end of the stream
        if self.ignored > LINGER_BYTES:
            self.handle_close()

    def handle_close(self) -> None:
        """Closes the connection; after a refusal only its sending half at first. One round of the loop may call it more
        than once."""
        if self.socket is None:
            return
        if self.refused and self.lingering is None:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                super().handle_close()
                return
            self.lingering, self.will_close = time.monotonic(), False
            return
        unfinished, self.request = self.request, None
        if unfinished is not None:
            if unfinished.headers_finished and not self.requests:
                self._tell_cut_off(unfinished)
            unfinished.close()  # the file that holds its body
        super().handle_close()

    def _tell_cut_off(self, request: RequestParser) -> None:
        """Answers a request whose body has no end, for a client that still listens: at once, since it may not."""
        status, why = (408, "too little of it came for too long") if self.too_late else (400, "its end did not come")
        error = ApiError(status, f"The upload was cut off: {why}.", code="upload_cut_off")
        body = json.dumps(error.body()).encode()
        headers = _headers(self.server.access, request, error)
        headers |= {"Content-Length": str(len(body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *(": ".join(pair) for pair in headers.items())]
        with contextlib.suppress(OSError):
            self.socket.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        logs.event("upload_cut_off", bytes_in=request.body_bytes_received, status=status)

    def handle_error(self) -> None:
        """Closes the connection whose handling raised the exception at hand; never raises one itself."""
        logs.failure("connection_failed", sys.exception() or RuntimeError())
        self.abandon()

    def abandon(self) -> None:
        """Closes the connection at once, without lingering."""
        self.refused = False
        try:
            self.handle_close()
        except Exception as error:  # whatever it is, it must not end the loop that all connections share
            logs.failure("connection_not_closed", error)
            self._map.pop(self._fileno, None)
            self.server.active_channels.pop(self._fileno, None)

    @property
    def idle(self) -> bool:
        """Has no request under way: it asked for nothing yet, or has its answer."""
        return not self.requests and (self.request is None or not self.request.headers_finished)

    def late(self, now: float) -> bool:
        """Whether the client is slower than any real connection."""
        if self.lingering is not None:
            return now - self.lingering > LINGER_SECONDS
        if self.request is None:
            return self.silent and now - self.opened > FIRST_BYTE_SECONDS
        if self.began is None:
            return False
        if not self.request.headers_finished:
            return now - self.began > HEADER_SECONDS
        received: int = self.request.body_bytes_received
        live = min(received / LIVE_RATE, self.server.audio_seconds + received / SLOWEST_RATE)
        return bool(now - self.began > BODY_SECONDS + live)


class Server(TcpWSGIServer):  # type: ignore[misc]
    """The listening socket."""

    channel_class = Channel

    def __init__(self, app: Flask, config: ServiceConfig, adjustments: Adjustments) -> None:
        shared = context_of(app)
        self.routes = app.url_map.bind("localhost")
        self.access = Access(shared.keys, config.cors.origins)
        self.upload_bytes = config.limits.upload_bytes
        self.audio_seconds = config.limits.audio_seconds
        self.told = config.results if config.fleet.on else None  # where it is told that requests are under way
        self.polled = time.monotonic()
        super().__init__(app, adj=adjustments)

    def run(self) -> None:
        """Serves until SystemExit. An exception in the loop costs the connection that raised it, and no other."""
        try:
            while self._map:
                try:
                    wasyncore.poll2(self.adj.asyncore_loop_timeout, self._map)
                except Exception as error:
                    logs.failure("server_loop_failed", error)
                    self._drop_broken()
        except (SystemExit, KeyboardInterrupt):
            self.task_dispatcher.shutdown()

    def readable(self) -> bool:
        """Called in every round of the loop; the watchdog checks that it is."""
        self.polled = time.monotonic()
        return bool(super().readable())

    def handle_accept(self) -> None:
        """Accepts a connection; when there are too many, closes the one that has been idle for longest."""
        if len(self.active_channels) < min(CONNECTIONS, CONNECTIONS_OF_ADDRESS):
            super().handle_accept()
            return
        known = set(self.active_channels)
        super().handle_accept()
        for number in set(self.active_channels) - known:
            self._make_room(self.active_channels[number])

    def admit(self, request: RequestParser) -> str:
        """The id of the client's key, checked before the body is read. Raises ApiError."""
        path = clean_path(request.path, clean_prefix(request.header("X-Forwarded-Prefix")))
        if not path.startswith("/v1/"):  # called only for a request with a body, which nobody may wait for here
            known = self.routes.allowed_methods(path)
            raise ApiError(413, NO_BODY, code=CODES[413]) if known else ApiError(404, NOT_FOUND, code="not_found")
        found = self.access.check(
            path,
            host=request.header("Host"),
            origin=request.header("Origin"),
            authorization=request.header("Authorization"),
        )
        under_way = sum(other.body_bytes_received for other in self._unfinished() if other.key_id == found)
        if under_way > UPLOADS_OF_KEY * self.upload_bytes:
            message = "Too much is being uploaded with this API key; wait for an upload to end."
            raise busy(429, message, "rate_limit_exceeded", seconds=10)
        return found

    def _unfinished(self) -> Iterator[RequestParser]:
        return (channel.request for channel in list(self.active_channels.values()) if channel.request is not None)

    def _under_way(self) -> Iterator[RequestParser]:
        """Requests that come in or wait for their answer."""
        yield from self._unfinished()
        for channel in list(self.active_channels.values()):
            yield from list(channel.requests)

    def _make_room(self, newcomer: Channel) -> None:
        others = [channel for channel in self.active_channels.values() if channel is not newcomer]
        same = [channel for channel in others if channel.addr[0] == newcomer.addr[0]]
        if len(same) < CONNECTIONS_OF_ADDRESS and len(others) < CONNECTIONS:
            return
        crowd = same if len(same) >= CONNECTIONS_OF_ADDRESS else others
        idle = [channel for channel in crowd if channel.idle]
        (min(idle, key=lambda channel: channel.last_activity) if idle else newcomer).abandon()

    def _drop_broken(self) -> None:
        """Closes the connections that raise when they are polled, which would stop the loop again."""
        for channel in list(self.active_channels.values()):
            try:
                channel.readable(), channel.writable(), channel.socket.fileno()
            except Exception:
                channel.abandon()

    def maintenance(self, now: float) -> None:
        """Closes idle connections and late ones."""
        super().maintenance(now)
        moment = time.monotonic()
        late = [channel for channel in list(self.active_channels.values()) if channel.late(moment)]
        for channel in late:
            channel.too_late = channel.will_close = (
                True  # closed now, its number could be a new connection's before this round is over
            )
        if late:
            logs.warning("slow_clients_dropped", connections=len(late))
        if self.told and any("/v1/" in (getattr(request, "path", None) or "") for request in self._under_way()):
            with contextlib.suppress(OSError):
                activity.tell(self.told)


def create_server(app: Flask, config: ServiceConfig, **changes: Any) -> Server:
    """Binds the port. `changes` override waitress's adjustments. Raises OSError if it is taken."""
    options: dict[str, Any] = {
        "host": config.host,
        "port": config.port,
        "threads": config.limits.waiting_requests + STORING_REQUESTS + ASKING_REQUESTS + SPARE_THREADS,
        "connection_limit": 2 * CONNECTIONS,  # never reached: the server makes room
        "backlog": 1024,
        "asyncore_use_poll": True,  # select() ends at 1024 descriptors
        "channel_request_lookahead": 1,  # lets a waiting request see that its client has left
        "channel_timeout": 120,
        "recv_bytes": RECEIVED_BYTES,
        "cleanup_interval": 5,
        "max_request_header_size": HEADER_BYTES,
        "max_request_body_size": config.limits.upload_bytes + ROOM_FOR_FIELDS,
        "ident": "transcribe",
        "clear_untrusted_proxy_headers": True,
        **changes,
    }
    return Server(app, config, Adjustments(**options))
