"""The bucket, as the launcher and as a machine sees it."""

import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from baker.context import BakeContext
from baker.doctor.finding import OK, UNKNOWN, Finding, found

TIMEOUT = 20.0  # seconds
KEY = "doctor/probe"  # one object, written again each time
SECONDS = 300  # that the address lasts
POLICY = "look at the bucket's policy and its default encryption; if it demands encryption by name, set [s3] encryption"


def there(context: BakeContext) -> Iterator[Finding]:
    """It is there, and in the region of the machines."""
    context.bucket.check()
    yield Finding("bucket", OK, f"{context.bucket.name} in {context.config.aws.region}")


def encryption(context: BakeContext) -> Iterator[Finding]:
    """By whose key its objects are encrypted."""
    yield Finding("bucket encryption", OK, context.bucket.encryption())


def writes(context: BakeContext) -> Iterator[Finding]:
    """A write under a condition, which the lease needs, succeeds once and fails the second time."""
    key, content = _key(context), uuid.uuid4().hex.encode()
    before = context.bucket.read(key)
    etag = context.bucket.put_if(key, content, before.etag if before else "")
    again = context.bucket.put_if(key, content + b"!", before.etag if before else "")
    bad = "" if etag and not again else "a write under a condition that is not met succeeds: no lease can be held"
    yield found("bucket write", bad, "conditions hold", "use a store that knows If-Match and If-None-Match")


def addresses(context: BakeContext) -> Iterator[Finding]:
    """What a machine does: one PUT and one GET by signed addresses, without credentials."""
    key, content, bucket = _key(context), uuid.uuid4().hex.encode(), context.bucket
    try:
        status, words = _send("PUT", bucket.url(key, "PUT", SECONDS, here=True), content, bucket.upload_headers)
        if status < 400:
            status, words = _send("GET", bucket.url(key, "GET", SECONDS, here=True))
    except OSError as error:
        detail = f"not reachable from here: {getattr(error, 'reason', error)}"
        yield Finding("signed addresses", UNKNOWN, detail, "check the network")
        return
    bad = "" if words == content else f"S3 answers {status}: {_words(words.decode(errors='replace'))}"
    yield found("signed addresses", bad, "PUT and GET", POLICY)


def _send(
    method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    typed = {"Content-Type": "", **headers} if data else {}
    request = urllib.request.Request(url, data=data, method=method, headers=typed)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _key(context: BakeContext) -> str:
    return f"{context.config.s3.prefix}/{KEY}"


def _words(document: str) -> str:
    """S3's own words out of its XML."""
    found_at = document.partition("<Message>")[2].partition("</Message>")[0]
    return " ".join((found_at or document).split())[:200]
