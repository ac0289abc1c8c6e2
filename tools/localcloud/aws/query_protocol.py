"""EC2's query protocol: form fields in, XML out, and the forwarding of a request to moto."""

import io
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

Form = dict[str, str]
MAX_FORM_BYTES = 1_048_576


class Ec2Error(Exception):
    """An error as the EC2 API returns it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def list_values(form: Form, name: str) -> list[str]:
    """The values of a list parameter: InstanceId.1, InstanceId.2 ..."""
    return [value for key, value in form.items() if re.fullmatch(rf"{name}\.\d+", key)]


def element_texts(body: bytes, element: str) -> list[str]:
    """The texts of an element in a response, each once."""
    return list(dict.fromkeys(re.findall(rf"<{element}>([^<]+)</{element}>", body.decode())))


class MotoCall:
    """One request that is forwarded to moto, and moto's response."""

    def __init__(self, inner: WSGIApplication, environ: WSGIEnvironment) -> None:
        self.inner = inner
        self.environ = environ
        self.status = "500"
        self.headers: list[tuple[str, str]] = []

    @property
    def region(self) -> str:
        """The region that the request was signed for."""
        scope = re.search(r"Credential=[^/]*/\d+/([^/]+)/", self.environ.get("HTTP_AUTHORIZATION", ""))
        return scope[1] if scope else ""

    @property
    def ok(self) -> bool:
        return self.status.startswith("200")

    def forward(self, form: Form) -> bytes:
        """Send the request on with `form` as its body."""
        data = urlencode(form).encode()
        environ = {**self.environ, "wsgi.input": io.BytesIO(data), "CONTENT_LENGTH": str(len(data))}

        def begin(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
            self.status, self.headers = status, headers
            return lambda data: None

        return b"".join(self.inner(environ, begin))

    def answer(self, start_response: StartResponse, body: bytes) -> list[bytes]:
        """Send moto's answer back with `body`."""
        headers = [(name, value) for name, value in self.headers if name.lower() != "content-length"]
        start_response(self.status if self.headers else "200 OK", [*headers, ("Content-Length", str(len(body)))])
        return [body]


def read_form(environ: WSGIEnvironment) -> Form:
    """A query-protocol request's fields, or nothing for any other request. The body can be read again."""
    if not environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return {}
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_FORM_BYTES:
        return {}
    data = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(data)
    return dict(parse_qsl(data.decode(), keep_blank_values=True))


def answer_error(start_response: StartResponse, error: Ec2Error) -> list[bytes]:
    """EC2's error document."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error></Errors>"
        "<RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    ).encode()
    status = "500 Internal Server Error" if error.code == "InternalError" else "400 Bad Request"
    start_response(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]
