"""Makes moto's EC2 API act on real machines: a WSGI layer round it that speaks the same wire protocol.

moto keeps the records (instances, tags, networks ...); this layer boots, stops and images the machines behind them, and
adds the rules that moto lacks: client-token idempotency, unique image names, real console output.
"""

import base64
import binascii
import io
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from .common import LocalCloudError

Form = dict[str, str]
MAX_FORM_BYTES = 1_048_576


class ApiError(Exception):
    """An error as EC2 puts it on the wire."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Actions(Protocol):
    """What the EC2 API does beyond moto's records."""

    def may_run(self, image_id: str) -> None: ...
    def launched(self, instance_ids: list[str], image_id: str, user_data: bytes) -> None: ...
    def stop(self, instance_ids: list[str], *, force: bool) -> None: ...
    def start(self, instance_ids: list[str]) -> None: ...
    def reboot(self, instance_ids: list[str]) -> None: ...
    def terminate(self, instance_ids: list[str]) -> None: ...
    def terminated(self, instance_id: str) -> bool: ...
    def console(self, instance_id: str) -> bytes: ...
    def may_image(self, instance_id: str, name: str, *, no_reboot: bool) -> None: ...
    def imaged(self, instance_id: str, image_id: str, *, snapshot_tags: Mapping[str, str]) -> None: ...
    def copied(self, source_id: str, image_id: str) -> None: ...
    def deregistered(self, image_id: str) -> None: ...
    def changed(self) -> None: ...


def members(form: Form, name: str) -> list[str]:
    """The values of a list: InstanceId.1, InstanceId.2 ..."""
    return [value for key, value in form.items() if re.fullmatch(rf"{name}\.\d+", key)]


def found(body: bytes, element: str) -> list[str]:
    """The texts of an element in a response, each once."""
    return list(dict.fromkeys(re.findall(rf"<{element}>([^<]+)</{element}>", body.decode())))


def take_snapshot_tags(form: Form) -> dict[str, str]:
    """Remove the tags for a snapshot from a CreateImage, which moto refuses, and return them."""
    specs = [key.split(".")[1] for key, value in form.items() if key.endswith(".ResourceType") and value == "snapshot"]
    tags: dict[str, str] = {}
    for number in specs:
        prefix = f"TagSpecification.{number}."
        ours = {key: form.pop(key) for key in list(form) if key.startswith(prefix)}
        for key, value in ours.items():
            if key.endswith(".Key"):
                tags[value] = ours.get(key[: -len("Key")] + "Value", "")
    return tags


class Ec2Layer:
    """The WSGI application: `inner` is moto's, `actions` does what must really happen."""

    def __init__(self, inner: WSGIApplication, actions: Actions) -> None:
        self.inner = inner
        self.actions = actions
        self._tokens: dict[str, tuple[Form, bytes, list[str]]] = {}
        self._lock = threading.RLock()
        self._handlers: dict[str, Callable[[Form, Call], bytes]] = {
            "RunInstances": self._run,
            "TerminateInstances": self._terminate,
            "StopInstances": self._stop,
            "StartInstances": self._start,
            "RebootInstances": self._reboot,
            "GetConsoleOutput": self._console,
            "CreateImage": self._create_image,
            "CopyImage": self._copy_image,
            "DeregisterImage": self._deregister,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        form = read_form(environ)
        handler = self._handlers.get(form.get("Action", ""))
        call = Call(self.inner, environ)
        if not form or "/ec2/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
            return self.inner(environ, start_response)
        if handler is None or form.get("DryRun") == "true":
            body = call.forward(form)
            if re.match("Create|Delete|Modify|Enable|Disable|Copy", form.get("Action", "")):
                self.actions.changed()
            return call.answer(start_response, body)
        try:
            with self._lock:
                return call.answer(start_response, handler(form, call))
        except ApiError as error:
            return answer_error(start_response, error)
        except LocalCloudError as error:
            return answer_error(start_response, ApiError("InternalError", str(error)))

    def _run(self, form: Form, call: "Call") -> bytes:
        token = form.get("ClientToken", "")
        asked = {key: value for key, value in form.items() if key != "ClientToken"}
        if token in self._tokens:
            return self._again(asked, *self._tokens[token])
        self.actions.may_run(form.get("ImageId", ""))
        try:
            user_data = base64.b64decode(form.get("UserData", ""), validate=True)
        except binascii.Error:
            raise ApiError("InvalidParameterValue", "Invalid BASE64 encoding of user data") from None
        if len(user_data) > 16_384:
            raise ApiError("InvalidParameterValue", "User data is limited to 16384 bytes")
        body = call.forward(form)
        if call.ok:
            instance_ids = found(body, "instanceId")
            if token:
                self._tokens[token] = (asked, body, instance_ids)
            self.actions.launched(instance_ids, form["ImageId"], user_data)
        return body

    def _again(self, asked: Form, first: Form, body: bytes, instance_ids: list[str]) -> bytes:
        if asked != first:
            raise ApiError("IdempotentParameterMismatch", "The client token was used before with other parameters.")
        if any(self.actions.terminated(instance_id) for instance_id in instance_ids):
            raise ApiError(
                "IdempotentInstanceTerminated", "The instance that this client token launched is terminated."
            )
        return body

    def _each(self, form: Form, call: "Call", act: Callable[[list[str]], None]) -> bytes:
        body = call.forward(form)
        if call.ok:
            act(members(form, "InstanceId"))
        return body

    def _terminate(self, form: Form, call: "Call") -> bytes:
        return self._each(form, call, self.actions.terminate)

    def _start(self, form: Form, call: "Call") -> bytes:
        return self._each(form, call, self.actions.start)

    def _reboot(self, form: Form, call: "Call") -> bytes:
        return self._each(form, call, self.actions.reboot)

    def _stop(self, form: Form, call: "Call") -> bytes:
        force = form.get("Force") == "true"
        body = self._each(form, call, lambda ids: self.actions.stop(ids, force=force))
        return body.replace(b"<code>80</code><name>stopped</name>", b"<code>64</code><name>stopping</name>")

    def _console(self, form: Form, call: "Call") -> bytes:
        body = call.forward(form)
        if not call.ok:
            return body
        output = base64.b64encode(self.actions.console(form.get("InstanceId", ""))).decode()
        return re.sub(rb"<output>.*?</output>|<output/>", f"<output>{output}</output>".encode(), body, flags=re.DOTALL)

    def _create_image(self, form: Form, call: "Call") -> bytes:
        instance_id = form.get("InstanceId", "")
        self.actions.may_image(instance_id, form.get("Name", ""), no_reboot=form.get("NoReboot") == "true")
        tags = take_snapshot_tags(form)
        body = call.forward(form)
        if call.ok:
            self.actions.imaged(instance_id, found(body, "imageId")[0], snapshot_tags=tags)
        return body

    def _copy_image(self, form: Form, call: "Call") -> bytes:
        body = call.forward(form)
        if call.ok:
            self.actions.copied(form.get("SourceImageId", ""), found(body, "imageId")[0])
        return body

    def _deregister(self, form: Form, call: "Call") -> bytes:
        body = call.forward(form)
        if call.ok:
            self.actions.deregistered(form.get("ImageId", ""))
        return body


class Call:
    """One request on its way to moto and back."""

    def __init__(self, inner: WSGIApplication, environ: WSGIEnvironment) -> None:
        self.inner = inner
        self.environ = environ
        self.status = "500"
        self.headers: list[tuple[str, str]] = []

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


def answer_error(start_response: StartResponse, error: ApiError) -> list[bytes]:
    """EC2's error document."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error></Errors>"
        "<RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    ).encode()
    status = "500 Internal Server Error" if error.code == "InternalError" else "400 Bad Request"
    start_response(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]
