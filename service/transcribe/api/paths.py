"""Paths as clients and proxies write them: `//v1/models`, `/v1/models/`, and below a prefix."""

import re
from collections.abc import Callable, Iterable
from typing import Any

PREFIX = re.compile(r"(/[A-Za-z0-9~_-][A-Za-z0-9.~_-]*){1,8}/?")
SLASHES = re.compile(r"/{2,}")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def clean_prefix(header: str | None) -> str:
    """The prefix that a proxy's X-Forwarded-Prefix names, without a slash at its end; '' for none and for nonsense."""
    return header.rstrip("/") if header and PREFIX.fullmatch(header) else ""


def clean_path(path: str, prefix: str) -> str:
    """The path as the routes know it. A proxy may have cut off the prefix or not."""
    path = "/" + SLASHES.sub("/", path).strip("/")
    if prefix and (path + "/").startswith(prefix + "/"):
        path = path[len(prefix) :]
    return path or "/"


class CleanPaths:
    """A WSGI application that gives another one clean paths. Where a prefix is in use, SCRIPT_NAME is it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers a request; `/prefix` is sent to `/prefix/`, where the page's relative URLs work."""
        prefix = clean_prefix(environ.get("HTTP_X_FORWARDED_PREFIX"))
        path = environ.get("PATH_INFO", "")
        if prefix and path == prefix:
            start_response("308 Permanent Redirect", [("Location", f"{prefix}/"), ("Content-Length", "0")])
            return [b""]
        cleaned = {**environ, "PATH_INFO": clean_path(path, prefix), "SCRIPT_NAME": prefix}
        return self._application(cleaned, start_response)
