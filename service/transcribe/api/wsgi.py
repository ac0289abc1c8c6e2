"""waitress, tuned and fenced: enough threads that /health never waits, OpenAI's errors also from the server itself,
deadlines for clients that trickle their bytes, and a stop that lets running requests finish."""

import json
import socket
import time
from typing import Any

from flask import Flask
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import Error

from transcribe import logs
from transcribe.api.errors import FULL, ApiError, disk_full
from transcribe.api.upload import ROOM_FOR_FIELDS
from transcribe.config import Config

SPARE_THREADS = 16  # for short requests, besides those that wait for transcripts
CONNECTIONS = 1000
HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 30.0  # a request's headers must be here by then
BODY_SECONDS = 60.0  # and its body too, plus a second for each SLOWEST_RATE bytes of it
SLOWEST_RATE = 4096  # bytes a second
LINGER_SECONDS = 10.0  # how long a refused client may go on sending
LINGER_BYTES = 64 * 1024 * 1024  # and how much
CODES = {400: "bad_request", 413: "request_too_large", 431: "headers_too_large", 501: "not_implemented"}


class JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers what never reached the application, such as a body that is too large, as the application would."""

    def execute(self) -> None:
        """Writes the error and closes the connection."""
        found = self.request.error
        message = "The request is larger than this server accepts." if found.code == 413 else f"{found.reason}."
        error = ApiError(found.code, message, code=CODES.get(found.code))
        if found.code == 507:
            error = disk_full()
        body = json.dumps(error.body()).encode()
        self.status = f"{found.code} {found.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.channel.refused = True
        self.content_length = len(body)
        self.write(body)


class InsufficientStorageError(Error):  # type: ignore[misc]
    """The request could not be kept while it came in."""

    code = 507
    reason = "Insufficient Storage"


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows since when its present request has been coming in.

    After a refusal it stays half open for a while and reads on: closed at once, the client that is still sending would
    see a broken connection instead of the reason (https://www.rfc-editor.org/rfc/rfc9112#section-9.6).
    """

    error_task_class = JsonErrorTask
    request: Any = None
    began: float | None = None
    refused = False
    lingering: float | None = None  # since when
    ignored = 0  # bytes read since then

    def received(self, data: bytes) -> bool:
        """Takes in bytes; a full disk is answered like any other error."""
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
        """Takes in bytes, or ignores them after a refusal."""
        if self.lingering is None:
            super().handle_read()
            return
        self.ignored += len(self.recv(self.adj.recv_bytes))  # closes the channel at the end of the stream
        if self.ignored > LINGER_BYTES:
            self.handle_close()

    def handle_close(self) -> None:
        """Closes the connection; after a refusal only its sending half at first."""
        if self.refused and self.lingering is None:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                super().handle_close()
                return
            self.lingering, self.will_close = time.monotonic(), False
            return
        super().handle_close()

    def late(self, now: float) -> bool:
        """The client takes longer than any honest line would."""
        if self.lingering is not None:
            return now - self.lingering > LINGER_SECONDS
        if self.began is None or self.request is None:
            return False
        if not self.request.headers_finished:
            return now - self.began > HEADER_SECONDS
        allowed: float = BODY_SECONDS + self.request.body_bytes_received / SLOWEST_RATE
        return now - self.began > allowed


class Server(TcpWSGIServer):  # type: ignore[misc]
    """The listening socket."""

    channel_class = Channel

    def maintenance(self, now: float) -> None:
        """Closes idle connections and late ones."""
        super().maintenance(now)
        moment = time.monotonic()
        late = [channel for channel in list(self.active_channels.values()) if channel.late(moment)]
        for channel in late:
            channel.will_close = True
        if late:
            logs.warning("slow_clients_dropped", connections=len(late))


def create_server(app: Flask, config: Config, **changes: Any) -> Server:
    """Binds the port. `changes` override waitress's adjustments. Raises OSError if it is taken."""
    options: dict[str, Any] = {
        "host": config.host,
        "port": config.port,
        "threads": config.limits.waiting_requests + SPARE_THREADS,
        "connection_limit": CONNECTIONS,
        "backlog": 1024,
        "asyncore_use_poll": True,  # select() ends at 1024 descriptors
        "channel_request_lookahead": 1,  # lets a waiting request see that its client has left
        "channel_timeout": 120,
        "cleanup_interval": 5,
        "max_request_header_size": HEADER_BYTES,
        "max_request_body_size": config.limits.upload_bytes + ROOM_FOR_FIELDS,
        "ident": "transcribe",
        "clear_untrusted_proxy_headers": True,
        **changes,
    }
    return Server(app, adj=Adjustments(**options))
