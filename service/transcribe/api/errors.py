"""One error shape everywhere: OpenAI's."""

import errno
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from transcribe.jobs.database import is_transient
from transcribe.jobs.models import JobError
from transcribe.jobs.sqlite import sqlite3

from .. import logs

RETRY_MOST = 120  # seconds; above this OpenAI's client does not retry at all
TYPES = {403: "permission_error", 429: "rate_limit_error"}
MESSAGES = {
    404: "There is nothing at this URL; GET /openapi.json lists what this server has.",
    405: "This method is not allowed here.",
    413: "The request is larger than this server accepts.",
    415: "Send the request as multipart/form-data.",
}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 415: "unsupported_media_type"}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class ApiError(Exception):
    """An answer that is an error; `headers` go with it."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = (
            self.type or TYPES.get(self.status) or ("server_error" if self.status >= 500 else "invalid_request_error")
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The whole answer."""
        return Response(
            json.dumps(self.body()), status=self.status, mimetype="application/json", headers=dict(self.headers)
        )


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """What the client sent cannot be used."""
    return ApiError(400, message, param, code)


def busy(status: int, message: str, code: str, *, seconds: float) -> ApiError:
    """The client should come back in so many seconds."""
    wait = min(max(math.ceil(seconds), 1), RETRY_MOST)
    if seconds > RETRY_MOST:
        message += f" At the present speed that takes about {math.ceil(seconds / 60)} minutes."
    return ApiError(status, message, code=code, headers={"Retry-After": str(wait)})


def from_job(error: JobError) -> ApiError:
    """A job's failure as its client sees it. Trying again is no use: the job has had its attempts."""
    headers = {"x-should-retry": "false"} if error.status >= 500 else {}
    return ApiError(error.status, error.message, error.param, error.code, error.type, headers)


def disk_full() -> ApiError:
    """There is no room to store the request."""
    return ApiError(507, "The server has no room left to store this.", code="insufficient_storage")


def from_exception(error: Exception) -> ApiError:
    """What a client learns about any exception: never a traceback, never a path."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        status = error.code or 500
        message = MESSAGES.get(status, f"{error.name}.")
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        return ApiError(status, message, code=CODES.get(status), headers=headers)
    if isinstance(error, OSError) and error.errno in FULL:
        return disk_full()
    if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return disk_full()
    if is_transient(error):
        logs.failure("store_busy", error)
        return busy(503, "The job store is busy; try again soon.", "store_busy", seconds=5)
    logs.failure("request_failed", error)
    return ApiError(500, "The server failed to process this request.", code="internal_error")


def register(app: Flask) -> None:
    """Makes every failure of the application an OpenAI error object."""

    def handle(error: Exception) -> Response:
        return from_exception(error).response()

    app.register_error_handler(Exception, handle)
