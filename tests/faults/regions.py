"""What AWS answers to requests that are signed for a region where the bucket is not, or that is not enabled."""

import re
from dataclasses import dataclass
from wsgiref.types import WSGIEnvironment

from support.fake_cloud import BUCKET

SCOPE = re.compile(r"Credential=[^/&]+(?:/|%2F)\d{8}(?:/|%2F)([\w-]+?)(?:/|%2F)([\w-]+)")
QUERY = "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors></Response>"
PERMANENT_REDIRECT = (
    "<Error><Code>PermanentRedirect</Code><Message>The bucket you are attempting to access must be addressed using the "
    "specified endpoint. Please send all future requests to this endpoint.</Message></Error>"
)
NOT_ENABLED = {  # status, code and words, by service
    "ec2": (401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
    "s3": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "ssm": (400, "UnrecognizedClientException", "The security token included in the request is invalid."),
}
OTHERS = (403, "InvalidClientTokenId", "The security token included in the request is invalid.")


@dataclass
class Regions:
    """Where the bucket is, if it is elsewhere, whether S3 says so in a header, and a region that is not enabled."""

    bucket: str = ""
    named: bool = True
    closed: str = ""

    def refuse(self, environ: WSGIEnvironment) -> tuple[int, bytes, list[tuple[str, str]]] | None:
        """Status, body and headers; None: the request is right."""
        signed = f"{environ.get('HTTP_AUTHORIZATION', '')}&{environ.get('QUERY_STRING', '')}"
        found = SCOPE.search(signed)
        if not found:
            return None
        region, service = found[1], found[2]
        head = environ["REQUEST_METHOD"] == "HEAD"
        if self.bucket and service == "s3" and region != self.bucket and environ["PATH_INFO"].startswith(f"/{BUCKET}"):
            headers = [("x-amz-bucket-region", self.bucket)] if self.named else []
            return 301, b"" if head else PERMANENT_REDIRECT.encode(), headers
        if region != self.closed:
            return None
        status, code, words = NOT_ENABLED.get(service, OTHERS)
        body = QUERY.format(code, words)
        if service == "s3":
            body = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
        if service == "ssm":
            body = f'{{"__type": "{code}", "message": "{words}"}}'
        return status, b"" if head else body.encode(), []
