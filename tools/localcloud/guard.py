"""Who may ask the local cloud: nobody without its secret, and no page of a browser.

It runs as root, on a port that every program of this host can connect to.
"""

import hmac
import json
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from botocore.credentials import Credentials

from localcloud.aws.sigv4 import Claim, RefusedError, check

from .endpoint import SEEN_BY_MACHINES, Secret
from .roles import RoleSessions, expect_permitted

CONTROL = "/_cloud/"
NOT_AWS = ("/moto-api", "/latest/", "/favicon.ico")  # moto's own interface, which the real AWS does not have
HERE = "127.0.0.1"
DRAINED_BYTES = 65_536  # of a refused request, so that its client reads the answer instead of a reset


class Guard:
    """The AWS API of `aws` for signed requests, and the control API of `control` for the secret's holder.

    With the keys of `sessions` only what a fleet's machine does is answered.
    """

    def __init__(self, aws: WSGIApplication, control: WSGIApplication, secret: Secret, sessions: RoleSessions) -> None:
        self._aws = aws
        self._control = control
        self._secret = secret
        self._sessions = sessions

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            host = expect_own_client(environ)
            if environ["PATH_INFO"].startswith(CONTROL):
                self._expect_token(environ, host)
                return self._control(environ, start_response)
            self._expect_signature(environ, host)
        except RefusedError as error:
            return refuse(environ, start_response, error)
        return self._aws(environ, without_cors(start_response))

    def _expect_token(self, environ: WSGIEnvironment, host: str) -> None:
        given = environ.get("HTTP_AUTHORIZATION", "").encode()
        if host != HERE or not hmac.compare_digest(given, f"Bearer {self._secret.control_token}".encode()):
            raise RefusedError("AccessDenied", "the control API needs the token of this local cloud")

    def _expect_signature(self, environ: WSGIEnvironment, host: str) -> None:
        if environ["PATH_INFO"].startswith(NOT_AWS):
            raise RefusedError("AccessDenied", "AWS has no such path")
        claim = check(environ, self._find_keys)
        if claim.access_key_id != self._secret.credentials.access_key:
            expect_permitted(environ, claim.service)
        elif host != HERE and not claim.presigned:
            raise RefusedError("AccessDenied", "Machines have presigned URLs, and the keys of their role")
        if claim.presigned:
            _fix_service(environ, claim)

    def _find_keys(self, access_key_id: str) -> Credentials | None:
        own = self._secret.credentials
        return own if access_key_id == own.access_key else self._sessions.find(access_key_id)


def _fix_service(environ: WSGIEnvironment, claim: Claim) -> None:
    """Let moto take a presigned request for S3's, whatever its body, which nobody has signed, looks like."""
    scope = f"{claim.access_key_id}/{claim.date}/{claim.region}/{claim.service}/aws4_request"
    environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}"


def without_cors(start_response: StartResponse) -> StartResponse:
    """`start_response` without the headers by which moto allows pages of every origin to read its answers."""

    def begin(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
        return start_response(status, kept, *error)

    return begin


def own_clients_only(application: WSGIApplication) -> WSGIApplication:
    """`application` for this host's programs and its machines, without browsers' pages; it needs no secret."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            expect_own_client(environ)
        except RefusedError as error:
            return refuse(environ, start_response, error)
        return application(environ, start_response)

    return guarded


def expect_own_client(environ: WSGIEnvironment) -> str:
    """The address that a request was sent to. Raises RefusedError for a browser's page, which has an Origin or asks a
    name that its owner let point here, and for what is not of the plain form `METHOD /path`.
    """
    if "HTTP_ORIGIN" in environ or environ["REQUEST_METHOD"] == "OPTIONS":
        raise RefusedError("AccessForbidden", "the local cloud does not answer pages of a browser")
    if not environ["REQUEST_URI"].startswith("/"):
        raise RefusedError("AccessDenied", "the local cloud is no proxy")
    for address in (HERE, SEEN_BY_MACHINES):
        if environ.get("HTTP_HOST") == f"{address}:{environ['SERVER_PORT']}":
            return address
    raise RefusedError("AccessDenied", "the local cloud has no such host name")


def refuse(environ: WSGIEnvironment, start_response: StartResponse, error: RefusedError) -> Iterable[bytes]:
    """An error in the form of the service that was asked."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isascii() and length.isdigit():
        environ["wsgi.input"].read(min(int(length), DRAINED_BYTES))
    kind, body = _error_document(environ, error)
    status = "400 Bad Request" if error.code == "XAmzContentSHA256Mismatch" else "403 Forbidden"
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body] if environ["REQUEST_METHOD"] != "HEAD" else []


def _error_document(environ: WSGIEnvironment, error: RefusedError) -> tuple[str, bytes]:
    if environ["PATH_INFO"].startswith(CONTROL):
        return "application/json", json.dumps({"error": str(error)}).encode()
    if "HTTP_X_AMZ_TARGET" in environ:
        return "application/x-amz-json-1.1", json.dumps({"__type": error.code, "message": str(error)}).encode()
    inner = f"<Error><Code>{error.code}</Code><Message>{escape(str(error))}</Message></Error>"
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        inner = f"<Response><Errors>{inner}</Errors></Response>"
    return "application/xml", f'<?xml version="1.0" encoding="UTF-8"?>{inner}'.encode()
