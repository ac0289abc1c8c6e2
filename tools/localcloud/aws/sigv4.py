"""Checks the signatures of requests (AWS Signature Version 4) by signing them again with botocore's own signers."""

import hashlib
import hmac
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl
from wsgiref.types import WSGIEnvironment

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"
SCOPE = r"(?P<key>[^/,\s]+)/(?P<date>\d{8})/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_request"
HEADER = re.compile(
    rf"{ALGORITHM} Credential={SCOPE}, ?SignedHeaders=(?P<headers>[^,\s]+), ?Signature=(?P<signature>[0-9a-f]{{64}})"
)
SKEW = timedelta(minutes=15)  # AWS' own
LONGEST_SECONDS = 7 * 24 * 3600  # of a presigned URL: AWS' own
MAX_UNHASHED_BYTES = 1_048_576  # of a body that must be read before its signature can be checked
HASH = "HTTP_X_AMZ_CONTENT_SHA256"
TOKEN = "HTTP_X_AMZ_SECURITY_TOKEN"  # noqa: S105 - a header's name
NOT_HASHED = ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")  # S3's words for a body that is not signed


class RefusedError(Exception):
    """A request is not signed as it must be; `code` is AWS' own word for what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Claim:
    """What a request says of its own signature. `lifetime` is a presigned URL's, in seconds."""

    access_key_id: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str
    timestamp: str
    lifetime: int | None = None

    @property
    def presigned(self) -> bool:
        return self.lifetime is not None

    @classmethod
    def of(cls, environ: WSGIEnvironment) -> "Claim":
        """Raises RefusedError for a request that claims nothing, or more than one thing."""
        query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        fields = dict(query)
        header = environ.get("HTTP_AUTHORIZATION")
        if header is None and "X-Amz-Signature" not in fields:
            raise RefusedError("MissingAuthenticationToken", "The request is not signed")
        if header is not None:
            if any(name.lower() in ("x-amz-signature", "x-amz-credential") for name in fields):
                raise RefusedError("InvalidArgument", "The request is signed in two ways")
            return cls._read(HEADER.fullmatch(header), environ.get("HTTP_X_AMZ_DATE", ""))
        if len(fields) != len(query) or fields.get("X-Amz-Algorithm") != ALGORITHM:
            raise RefusedError("AuthorizationQueryParametersError", "The presigned URL is malformed")
        return cls._read_query(fields)

    @classmethod
    def _read_query(cls, fields: dict[str, str]) -> "Claim":
        lifetime = fields.get("X-Amz-Expires", "")
        if not re.fullmatch(r"\d{1,6}", lifetime) or not 1 <= int(lifetime) <= LONGEST_SECONDS:
            raise RefusedError("AuthorizationQueryParametersError", "X-Amz-Expires is from one second to seven days")
        named = [fields.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature")]
        written = f"{ALGORITHM} Credential={named[0]},SignedHeaders={named[1]},Signature={named[2]}"
        claim = cls._read(HEADER.fullmatch(written), fields.get("X-Amz-Date", ""), int(lifetime))
        if claim.service != "s3":
            raise RefusedError("AuthorizationQueryParametersError", "Only S3 takes presigned URLs")
        return claim

    @classmethod
    def _read(cls, found: re.Match[str] | None, timestamp: str, lifetime: int | None = None) -> "Claim":
        if found is None:
            raise RefusedError("IncompleteSignature", "The request's signature is malformed")
        names = tuple(found["headers"].split(";"))
        scope = (found["key"], found["date"], found["region"], found["service"])
        return cls(*scope, names, found["signature"], timestamp, lifetime)

    def expect_in_time(self, now: datetime) -> None:
        """Raises RefusedError when the signature is not, or no longer, good at `now`."""
        try:
            signed = datetime.strptime(self.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise RefusedError("AccessDenied", "The request says no time, as X-Amz-Date") from None
        if not self.timestamp.startswith(self.date):
            raise RefusedError("SignatureDoesNotMatch", "The signature's scope is of another day than X-Amz-Date")
        if signed > now + SKEW:
            raise RefusedError("RequestTimeTooSkewed", "The request is from the future: compare the clocks")
        if self.lifetime is not None and now > signed + timedelta(seconds=self.lifetime):
            raise RefusedError("AccessDenied", "Request has expired")
        if self.lifetime is None and now > signed + SKEW:
            raise RefusedError("RequestTimeTooSkewed", "The request is too old: compare the clocks")


def check(environ: WSGIEnvironment, find: Callable[[str], Credentials | None]) -> Claim:
    """The claim of a rightly signed request, whose body can be read again. Raises RefusedError.

    `find` gives the keys that go by an access key id.

    The body is read only once the signature over its digest is right, except where AWS' clients send no digest.
    """
    claim = Claim.of(environ)
    claim.expect_in_time(datetime.now(UTC))
    credentials = find(claim.access_key_id)
    if credentials is None:
        raise RefusedError("InvalidAccessKeyId", "The access key is not this local cloud's")
    if not hmac.compare_digest(environ.get(TOKEN, "").encode(), str(credentials.token or "").encode()):
        raise RefusedError("InvalidToken", "The security token is not the one of this access key")
    for name in environ:
        if name.startswith("HTTP_X_AMZ_") and name.removeprefix("HTTP_").lower().replace("_", "-") not in claim.headers:
            raise RefusedError("AccessDenied", "There were headers present in the request which were not signed")
    digest = _digest(environ, claim)
    body = b"" if digest else _read(environ, MAX_UNHASHED_BYTES)
    if not hmac.compare_digest(_signature(environ, claim, credentials, body), claim.signature):
        raise RefusedError("SignatureDoesNotMatch", "The signature is not the one of this request and this secret key")
    if re.fullmatch("[0-9a-f]{64}", digest) and hashlib.sha256(_read(environ)).hexdigest() != digest:
        raise RefusedError("XAmzContentSHA256Mismatch", "The body is not the one that was signed")
    return claim


def _digest(environ: WSGIEnvironment, claim: Claim) -> str:
    """What is signed in place of the body; empty if that is the body itself."""
    if claim.presigned:
        return NOT_HASHED[0]
    digest = str(environ.get(HASH, ""))
    allowed = NOT_HASHED if claim.service == "s3" else ("",)
    if digest not in allowed and not re.fullmatch("[0-9a-f]{64}", digest):
        raise RefusedError("InvalidRequest", "X-Amz-Content-SHA256 is missing or unknown")
    return digest


def _read(environ: WSGIEnvironment, limit: int | None = None) -> bytes:
    """The body, which can be read again. Raises RefusedError if it is longer than `limit` bytes."""
    text = environ.get("CONTENT_LENGTH") or "0"
    length = int(text) if text.isascii() and text.isdigit() else 0
    if environ.get("wsgi.input_terminated"):
        length = -1
    if limit is not None and not 0 <= length <= limit:
        raise RefusedError("RequestEntityTooLarge", f"A body without a signed digest is limited to {limit} bytes")
    body: bytes = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _signature(environ: WSGIEnvironment, claim: Claim, credentials: Credentials, body: bytes) -> str:
    """The signature that this request must have."""
    path, _, query = str(environ["REQUEST_URI"]).partition("?")
    kept = [field for field in query.split("&") if field and not field.startswith("X-Amz-Signature=")]
    url = f"http://{environ['HTTP_HOST']}{path}{'?' if kept else ''}{'&'.join(kept)}"
    headers = {name: _header(environ, name) for name in claim.headers}
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, headers=headers, data=body)
    request.context["timestamp"] = claim.timestamp
    kind = S3SigV4QueryAuth if claim.presigned else S3SigV4Auth if claim.service == "s3" else SigV4Auth
    signer = kind(credentials, claim.service, claim.region)
    return str(signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request))


def _header(environ: WSGIEnvironment, name: str) -> str:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")
    if value is None:
        raise RefusedError("SignatureDoesNotMatch", f"The signed header {name} is missing")
    return str(value)
