"""An AWS that misbehaves on purpose: moto behind the local cloud's EC2 layer, and before both a layer that sees every
HTTP request of the launcher and throttles, breaks, loses, denies or denies knowledge of the one that a test names.

The launcher is a process of its own, forked from this one, so that it can be killed at any request. Machines are moto's
records; what a machine would do, it does when its launcher first looks at its progress.
"""

import io
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from faults.account import CONSOLES, backend, living
from faults.naming import name_of
from faults.regions import Regions
from localcloud.aws import s3_conditions, scaling
from localcloud.aws.ec2 import Ec2Layer
from localcloud.aws.query_protocol import Ec2Error, Form, answer_error, read_form
from localcloud.server import Http11Handler
from support.fake_cloud import RecordedMachines
from support.fake_machine import FakeMachine, Script, looked, succeed
from support.moto_app import moto_app
from werkzeug.serving import make_server

LAUNCHER = "bake"  # in the user agent of every request that the launcher sends
THROTTLED, BROKEN, LOST, LOST_AFTER, DENIED, NOT_FOUND = (
    "throttled twice", "5xx twice", "lost before", "lost after effect", "denied", "not found thrice",
)  # fmt: skip
KILLED, KILLED_AFTER, PAUSED, DELAYED = "killed before", "killed after", "paused", "delayed"
INTERRUPTED = "interrupted"  # by Ctrl-C, while the call is answered
TIMES = {THROTTLED: 2, BROKEN: 2, NOT_FOUND: 3, DENIED: 10_000}  # the others: once
FAULTS = (THROTTLED, BROKEN, LOST, LOST_AFTER, DENIED, NOT_FOUND)
MISSING = {
    "RunInstances": "InvalidAMIID.NotFound",
    "CreateTags": "InvalidAMIID.NotFound",
    "CreateSecurityGroup": "InvalidVpcID.NotFound",
    "DeregisterImage": "InvalidAMIID.NotFound",
    "DeleteSnapshot": "InvalidSnapshot.NotFound",
}
SETS = rb"reservationSet|imagesSet|snapshotSet|volumeSet|securityGroupInfo|vpcSet|subnetSet|instanceTypeOfferingSet"
BY_POLICY = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
EMPTY = re.compile(rb"<(" + SETS + rb")>.*</\1>", re.DOTALL)


@dataclass
class Fault:
    """What goes wrong with which call: the `occurrence`-th one of that name, counted from 1."""

    kind: str
    call: str
    occurrence: int = 1
    answer: bytes = b""  # instead of the kind's own: an EC2 error code, or how a test changes the true answer
    hits: int = 0


class DroppedError(ConnectionError):
    """Ends a request without an answer."""


class DroppingHandler(Http11Handler):
    """Closes the connection of a request that is lost, as a network would. Its clock may be ahead of ours."""

    ahead = 0.0  # seconds

    def date_time_string(self, timestamp: float | None = None) -> str:
        told: str = super().date_time_string(time.time() + self.ahead if timestamp is None else timestamp)
        return told

    def connection_dropped(self, error: BaseException, environ: WSGIEnvironment | None = None) -> None:
        self.close_connection = True


class Machines(RecordedMachines):
    """Machines that work when they are first looked at, and what there ever was of them at one time."""

    def __init__(self, ec2: Callable[[], Any], reference: str) -> None:
        super().__init__()
        self.client = ec2
        self._reference = reference
        self._waiting: list[str] = []
        self.scripts: dict[str, Script] = {}
        self.most = 0

    def forget(self) -> None:
        self.names.clear()
        self.ended.clear()
        self._waiting.clear()
        self.scripts = {"bake": succeed, "verify": succeed, "look": looked}
        self.most = 0

    def launched(self, instance_ids: list[str], image_id: str, user_data: bytes) -> None:
        self._waiting += instance_ids
        self.most = max(self.most, len(living()))

    def console(self, instance_id: str) -> bytes:
        return CONSOLES.get(instance_id, "").encode() or super().console(instance_id)

    def imaged(self, instance_id: str, image_id: str, *, no_reboot: bool, snapshot_tags: Mapping[str, str]) -> None:
        backend().amis[image_id].ebs_snapshot.add_tags(snapshot_tags)

    def looked_at(self) -> None:
        """Every machine that has not worked yet does it now."""
        while self._waiting:
            machine = FakeMachine(self.client(), self._waiting.pop(0), self._reference)
            self.scripts[machine.mode](machine)


@dataclass
class Misbehaving:
    """The WSGI layer that a test's fault acts in. `log` has every call of the launcher, in order."""

    inner: WSGIApplication
    machines: Machines
    fault: Fault | None = None
    refuses: Callable[[Form], tuple[str, str] | None] = lambda form: None  # a RunInstances: code and message
    rewrites: Callable[[str, Form, bytes], bytes] | None = None  # of true answers: the call's name, its form, the body
    meets: Callable[[str], None] = lambda name: None  # told of every call before it is answered
    expires: str = ""  # with this call the launcher's credentials end
    expired: str = "ExpiredToken"  # how that is said
    answers: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None  # to signed addresses
    ignores_conditions: bool = False  # of writes to S3
    regions: Regions = field(default_factory=Regions)
    demands: str = ""  # the encryption that every write to S3 must name
    goes_on: threading.Event = field(default_factory=threading.Event)  # a launcher that was paused
    launcher: int = 0  # the process to kill or to pause
    log: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if f" {LAUNCHER}" not in environ.get("HTTP_USER_AGENT", ""):
            return self._signed(environ, start_response)
        if self.ignores_conditions:
            environ.pop("HTTP_IF_MATCH", None), environ.pop("HTTP_IF_NONE_MATCH", None)
        name = name_of(environ)
        fault = self._due(name)
        if name == "GetObject progress.json":
            self.machines.looked_at()
        if self.expires in self.log:
            return answer(Fault(DENIED, name, answer=self.expired.encode()), name, environ, start_response, self.inner)
        refusal = self.refuses(read_form(environ)) if name == "RunInstances" else None
        if refusal:
            return answer_error(start_response, Ec2Error(*refusal))
        if fault is not None and fault.kind in (PAUSED, DELAYED, INTERRUPTED):
            self._strike(fault, environ)
            fault = None
        if fault is None:
            self.meets(name)
            return self._answer(name, environ, start_response)
        if fault.kind in (LOST, KILLED):
            self._end_of(fault)
        if fault.kind in (LOST_AFTER, KILLED_AFTER):
            list(self.inner(environ, start_response))
            self._end_of(fault)
        return answer(fault, name, environ, start_response, self.inner)

    def _signed(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """A request to a signed address."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        refused = self.answers(method, path) or self._denied_by_policy(environ) or self.regions.refuse(environ)
        return _plain(environ, start_response, *refused) if refused else self.inner(environ, start_response)

    def _denied_by_policy(self, environ: WSGIEnvironment) -> tuple[int, bytes] | None:
        """What S3 answers to a write without the encryption that the bucket's policy demands."""
        named = environ.get("HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION", "")
        denied = self.demands and environ["REQUEST_METHOD"] == "PUT" and named != self.demands
        return (403, BY_POLICY) if denied else None

    def _strike(self, fault: Fault, environ: WSGIEnvironment) -> None:
        """Interrupt the launcher, or stop it; what it has just asked for is done meanwhile, or only when it goes on."""
        if fault.kind == INTERRUPTED:
            os.kill(self.launcher, signal.SIGINT)
            return
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        self.goes_on.clear()
        os.kill(self.launcher, signal.SIGSTOP)
        if fault.kind == DELAYED:
            self.goes_on.wait()

    def _answer(self, name: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if denied := self._denied_by_policy(environ) or self.regions.refuse(environ):
            return _plain(environ, start_response, *denied)
        if self.rewrites is None:
            return self.inner(environ, start_response)
        form, rewrites = read_form(environ), self.rewrites
        return rewritten(environ, start_response, self.inner, lambda body: rewrites(name, form, body))

    def _due(self, name: str) -> Fault | None:
        """The fault, if it is this request's turn; a repetition by botocore is the same occurrence."""
        with self._lock:
            self.log.append(name)
            fault = self.fault
            if fault is None or fault.call != name or fault.hits >= TIMES.get(fault.kind, 1):
                return None
            if Counter(self.log)[name] < fault.occurrence:
                return None
            fault.hits += 1
            return fault

    def _end_of(self, fault: Fault) -> None:
        if fault.kind in (KILLED, KILLED_AFTER):
            os.kill(self.launcher, signal.SIGKILL)
        raise DroppedError


def answer(
    fault: Fault, name: str, environ: WSGIEnvironment, start_response: StartResponse, inner: WSGIApplication
) -> Iterable[bytes]:
    """The answer of a service that refuses."""
    service = "ssm" if environ.get("HTTP_X_AMZ_TARGET") else "ec2" if read_form(environ) else "s3"
    if fault.kind == NOT_FOUND and service == "ec2" and name.startswith("Describe") and not name.endswith("by id"):
        # It does not find yet what is there already: the true answer without its items.
        return rewritten(environ, start_response, inner, lambda body: EMPTY.sub(rb"<\1/>", body))
    status, code = {
        THROTTLED: {"ec2": (503, "RequestLimitExceeded"), "s3": (503, "SlowDown"), "ssm": (400, "ThrottlingException")},
        BROKEN: {"ec2": (500, "InternalError"), "s3": (500, "InternalError"), "ssm": (500, "InternalServerError")},
        DENIED: {
            "ec2": (403, "UnauthorizedOperation"), "s3": (403, "AccessDenied"), "ssm": (400, "AccessDeniedException"),
        },
        NOT_FOUND: {
            "ec2": (400, missing(name)), "s3": (404, "NoSuchKey" if "Get" in name else "NoSuchBucket"),
            "ssm": (400, "ParameterNotFound"),
        },
    }[fault.kind][service]  # fmt: skip
    code = fault.answer.decode() or code
    message = f"{fault.kind}: {name}"
    body = {
        "ec2": f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>",
        "s3": f"<Error><Code>{code}</Code><Message>{message}</Message></Error>",
        "ssm": f'{{"__type": "{code}", "message": "{message}"}}',
    }[service].encode()
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else body
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response(f"{status} Refused", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _plain(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: int,
    body: bytes,
    headers: Iterable[tuple[str, str]] = (),
) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response(f"{status} Refused", [*headers, ("Content-Length", str(len(body)))])
    return [body]


def missing(name: str) -> str:
    """EC2's word for what it does not know yet."""
    operation = name.partition(" ")[0]
    return MISSING.get(operation, "InvalidAMIID.NotFound" if "Images" in operation else "InvalidInstanceID.NotFound")


def rewritten(
    environ: WSGIEnvironment, start_response: StartResponse, inner: WSGIApplication, change: Callable[[bytes], bytes]
) -> Iterable[bytes]:
    """The true answer, changed."""
    told: dict[str, Any] = {}

    def begin(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
        told.update(status=status, headers=[h for h in headers if h[0].lower() != "content-length"])
        return lambda data: None

    body = change(b"".join(inner(environ, begin)))
    start_response(told["status"], [*told["headers"], ("Content-Length", str(len(body)))])
    return [body]


def serve(machines: Machines) -> tuple[Any, Misbehaving]:
    """The server, which serves from a thread, and its misbehaving layer."""
    moto = s3_conditions.atomic(moto_app())
    application = Misbehaving(Ec2Layer(moto, machines), machines)
    server = make_server(
        "127.0.0.1", 0, scaling.understood(application), threaded=True, request_handler=DroppingHandler
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server, application
