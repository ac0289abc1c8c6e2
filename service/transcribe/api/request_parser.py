"""waitress's request parser, with limits on what it keeps, and a check of the headers before the body is read."""

import re
from collections.abc import Callable
from typing import Any

from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.utilities import BadRequest, Error

from transcribe.api.errors import ApiError

CHUNK_SIZE_LINE = 256  # bytes of a chunk's size line; one that never ends is searched again with every read
TRAILER_BYTES = 8192
SMALL_CHUNKS = 64 * 1024  # bytes of a body that may come in chunks of any size, such as the head of a form
OVERHEAD = 2  # bytes on the way for each byte of the body, at most, after these; each chunk costs the same time

NO_LENGTH = ApiError(
    411, "Send Content-Length, or with HTTP/1.1 Transfer-Encoding: chunked; this request has neither.", code="no_length"
)

SMALL = ApiError(400, "The body's chunks are too small; send more bytes in each.", code="bad_request")

ORIGIN = re.compile(rb"\nOrigin:[ \t]*([^\r\n]+)", re.IGNORECASE)

Admit = Callable[["RequestParser"], str]


class RefusedError(Error):  # type: ignore[misc]
    """A request that is refused because of its headers."""

    def __init__(self, reason: ApiError) -> None:
        super().__init__(reason.message)
        self.code, self.reason, self.api_error = reason.status, "Refused", reason


class RequestParser(HTTPRequestParser):  # type: ignore[misc]
    """One request as it arrives. `key_id` identifies the client once the headers are complete; see Access."""

    key_id: str | None = None

    def __init__(self, adjustments: Adjustments, admit: Admit) -> None:
        super().__init__(adjustments)
        self._admit = admit

    def received(self, data: bytes) -> int:
        """Parses bytes and returns how many it used; `error` and `completed` are set for a request that is refused."""
        head = self.header_plus
        taken: int = super().received(data)
        if self.error is not None and (origin := ORIGIN.search(head + data)):
            self.headers.setdefault("ORIGIN", origin[1].decode("latin-1").strip())
        if self.headers_finished and self.body_rcv is None and self.error is None and self._lacks_length():
            self._decide()
            if self.error is None:
                self._refuse(RefusedError(NO_LENGTH))
        if self.body_rcv is not None and self.error is None:
            if self.key_id is None:
                self._decide()
            self._bound_chunks(self.body_rcv)
        return taken

    def header(self, name: str) -> str | None:
        """A header's value; None if it was not sent."""
        found: str | None = self.headers.get(name.upper().replace("-", "_"))
        return found

    def _lacks_length(self) -> bool:
        """Whether a body seems to follow of which nobody knows where it ends. Without this its bytes would be taken for
        the next request."""
        kind = self.header("Content-Type") or ""
        return kind.lower().startswith("multipart/") and self.header("Content-Length") is None

    def _decide(self) -> None:
        try:
            self.key_id = self._admit(self)
        except ApiError as reason:
            self._refuse(RefusedError(reason))

    def _bound_chunks(self, receiver: Any) -> None:
        if not isinstance(receiver, ChunkedReceiver) or self.completed:
            return
        if len(receiver.control_line) > CHUNK_SIZE_LINE or len(receiver.trailer) > TRAILER_BYTES:
            self._refuse(BadRequest("A chunk's size line or the trailer is too long"))
        elif self.body_bytes_received > max(SMALL_CHUNKS, OVERHEAD * len(receiver)):
            self._refuse(RefusedError(SMALL))

    def _refuse(self, error: Error) -> None:
        self.error, self.completed = error, True
        self.expect_continue = False  # the client must not be told to send its body
