"""Makes moto's EC2 API act on real machines: a WSGI layer around it that speaks EC2's query protocol.

moto keeps the records (instances, tags, networks ...); this layer boots, stops and images the machines behind them, and
adds the rules that moto lacks: client-token idempotency, unique image names, real console output.
"""

import base64
import binascii
import re
import threading
from collections.abc import Callable, Iterable
from typing import Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from localcloud.aws import account, launch_templates
from localcloud.aws.ec2_images import ImageActions, ImageCalls
from localcloud.aws.query_protocol import Ec2Error, Form, MotoCall, answer_error, element_texts, list_values, read_form
from localcloud.common import LocalCloudError


class Ec2Actions(ImageActions, Protocol):
    """What the EC2 calls do beyond moto's records."""

    def may_run(self, image_id: str) -> None: ...
    def launched(self, instance_ids: list[str], image_id: str, user_data: bytes) -> None: ...
    def stop(self, instance_ids: list[str], *, force: bool) -> None: ...
    def start(self, instance_ids: list[str]) -> None: ...
    def reboot(self, instance_ids: list[str]) -> None: ...
    def terminate(self, instance_ids: list[str]) -> None: ...
    def terminated(self, instance_id: str) -> bool: ...
    def console(self, instance_id: str) -> bytes: ...
    def reconcile(self) -> None: ...


class Ec2Layer:
    """The WSGI application: `inner` is moto's, `actions` acts on the machines."""

    def __init__(self, inner: WSGIApplication, actions: Ec2Actions) -> None:
        self.inner = inner
        self.actions = actions
        self._tokens: dict[str, tuple[Form, bytes, list[str]]] = {}
        self._lock = threading.RLock()
        self._handlers: dict[str, Callable[[Form, MotoCall], bytes]] = {
            "RunInstances": self._run,
            "TerminateInstances": self._terminate,
            "StopInstances": self._stop,
            "StartInstances": self._start,
            "RebootInstances": self._reboot,
            "GetConsoleOutput": self._console,
            "CreateLaunchTemplateVersion": self._template,
            "GetEbsDefaultKmsKeyId": self._disk_key,
            **ImageCalls(actions).handlers(),
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        form = read_form(environ)
        handler = self._handlers.get(form.get("Action", ""))
        call = MotoCall(self.inner, environ)
        scope = environ.get("HTTP_AUTHORIZATION", "")
        if "/autoscaling/aws4_request" in scope:  # Auto Scaling starts and ends instances without an EC2 call
            answer = list(self.inner(environ, start_response))
            self.actions.reconcile()
            return answer
        if not form or "/ec2/aws4_request" not in scope:
            return self.inner(environ, start_response)
        if handler is None or form.get("DryRun") == "true":
            body = call.forward(form)
            if re.match("Create|Delete|Modify|Enable|Disable|Copy", form.get("Action", "")):
                self.actions.changed()
            return call.answer(start_response, body)
        try:
            with self._lock:
                return call.answer(start_response, handler(form, call))
        except Ec2Error as error:
            return answer_error(start_response, error)
        except LocalCloudError as error:
            return answer_error(start_response, Ec2Error("InternalError", str(error)))

    def _run(self, form: Form, call: MotoCall) -> bytes:
        token = form.get("ClientToken", "")
        asked = {key: value for key, value in form.items() if key != "ClientToken"}
        if token in self._tokens:
            return self._repeat_answer(asked, *self._tokens[token])
        form = launch_templates.expand(form, call.region)
        self.actions.may_run(form.get("ImageId", ""))
        try:
            user_data = base64.b64decode(form.get("UserData", ""), validate=True)
        except binascii.Error:
            raise Ec2Error("InvalidParameterValue", "Invalid BASE64 encoding of user data") from None
        if len(user_data) > 16_384:
            raise Ec2Error("InvalidParameterValue", "User data is limited to 16384 bytes")
        body = call.forward(form)
        if call.ok:
            instance_ids = element_texts(body, "instanceId")
            if token:
                self._tokens[token] = (asked, body, instance_ids)
            self.actions.launched(instance_ids, form["ImageId"], user_data)
        return body

    def _repeat_answer(self, asked: Form, first: Form, body: bytes, instance_ids: list[str]) -> bytes:
        if asked != first:
            raise Ec2Error("IdempotentParameterMismatch", "The client token was used before with other parameters.")
        if any(self.actions.terminated(instance_id) for instance_id in instance_ids):
            raise Ec2Error(
                "IdempotentInstanceTerminated", "The instance that this client token launched is terminated."
            )
        return body

    def _each(self, form: Form, call: MotoCall, act: Callable[[list[str]], None]) -> bytes:
        body = call.forward(form)
        if call.ok:
            act(list_values(form, "InstanceId"))
        return body

    def _terminate(self, form: Form, call: MotoCall) -> bytes:
        body = self._each(form, call, self.actions.terminate)
        self.actions.reconcile()  # an Auto Scaling group may have replaced the instance
        return body

    def _template(self, form: Form, call: MotoCall) -> bytes:
        body = call.forward(form)
        launch_templates.convert_user_data(call.region)
        return body

    def _disk_key(self, form: Form, call: MotoCall) -> bytes:
        """moto does not know this one."""
        return f"<{form['Action']}Response><kmsKeyId>{account.disk_key}</kmsKeyId></{form['Action']}Response>".encode()

    def _start(self, form: Form, call: MotoCall) -> bytes:
        return self._each(form, call, self.actions.start)

    def _reboot(self, form: Form, call: MotoCall) -> bytes:
        return self._each(form, call, self.actions.reboot)

    def _stop(self, form: Form, call: MotoCall) -> bytes:
        for instance_id in filter(self.actions.terminated, list_values(form, "InstanceId")):  # moto would bring it back
            raise Ec2Error(
                "IncorrectInstanceState", f"The instance '{instance_id}' cannot be stopped: it is terminated"
            )
        force = form.get("Force") == "true"
        body = self._each(form, call, lambda ids: self.actions.stop(ids, force=force))
        return body.replace(b"<code>80</code><name>stopped</name>", b"<code>64</code><name>stopping</name>")

    def _console(self, form: Form, call: MotoCall) -> bytes:
        body = call.forward(form)
        if not call.ok:
            return body
        output = base64.b64encode(self.actions.console(form.get("InstanceId", ""))).decode()
        return re.sub(rb"<output>.*?</output>|<output/>", f"<output>{output}</output>".encode(), body, flags=re.DOTALL)
