"""An HTTP server on loopback in the place of signed URLs or of the service: serves files, keeps what it is sent."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Upload(NamedTuple):
    """One request with a body."""

    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass
class UploadServer:
    """What a test sets and reads; the first `failures` uploads are answered with 503."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # response by path
    uploads: list[Upload] = field(default_factory=list)
    failures: int = 0

    def body(self, path: str) -> bytes:
        """The last body sent to a path."""
        return [upload.body for upload in self.uploads if upload.path == path][-1]


@contextmanager
def serving() -> Iterator[UploadServer]:
    """A server, while this is open."""
    state = UploadServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond(state.files.get(self.path))

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if state.failures:
                state.failures -= 1
                self.send_error(503)
                return
            state.uploads.append(Upload(self.path, body, dict(self.headers)))
            self._respond(state.files.get(self.path, b""))

        do_POST = do_PUT

        def _respond(self, data: bytes | None) -> None:
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
        server.shutdown()
