"""Makes S3's conditional writes atomic, as they are on AWS: moto checks and writes in two steps without a lock."""

import io
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def atomic(inner: WSGIApplication) -> WSGIApplication:
    """`inner`, moto's application, with one conditional request at a time."""
    lock = threading.Lock()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
            body = environ["wsgi.input"].read(
                int(environ.get("CONTENT_LENGTH") or 0)
            )  # slow clients wait outside the lock
            with lock:
                return list(inner({**environ, "wsgi.input": io.BytesIO(body)}, start_response))
        return inner(environ, start_response)

    return application
