"""Keys of the role that an instance profile gives a machine: they expire, and are good for what a fleet's machine does.

AWS would read the role's policy. The local cloud knows one role, and what it permits stands here.
"""

import io
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote
from wsgiref.types import WSGIEnvironment

from botocore.credentials import Credentials

from localcloud.aws.query_protocol import read_form
from localcloud.aws.sigv4 import RefusedError

from .endpoint import BUCKET

LIFETIME_SECONDS = 3600.0
RENEWED_SECONDS = 1200.0  # before the end there are new ones; clients ask for them 15 minutes before it
OBJECTS = "transcribe-fleet"  # the prefix, [fleet]'s own default, below which its machines may read and write
QUEUES = tuple(
    f"AmazonSQS.{operation}"
    for operation in (
        *("GetQueueUrl", "GetQueueAttributes", "ReceiveMessage", "SendMessage"),
        *("ChangeMessageVisibility", "DeleteMessage"),
    )
)
FIGURES = "GraniteServiceVersion20100801.PutMetricData"
ENDING = (
    *("TerminateInstanceInAutoScalingGroup", "DescribeAutoScalingInstances"),
    *("RecordLifecycleActionHeartbeat", "CompleteLifecycleAction"),
)
MAX_BYTES = 2_097_152  # of a request in JSON


@dataclass(frozen=True)
class RoleSession:
    """Keys that were given to a machine; `expires` is a Unix time."""

    machine: str
    credentials: Credentials
    expires: float


class RoleSessions:
    """All that are good now."""

    def __init__(self, lifetime: float = LIFETIME_SECONDS, clock: Callable[[], float] = time.time) -> None:
        self._lifetime, self._clock = lifetime, clock
        self._sessions: dict[str, RoleSession] = {}  # by access key, in the order in which they were made
        self._lock = threading.Lock()

    def give(self, machine_id: str) -> RoleSession:
        """A machine's keys: those it has, or new ones if these are about to expire."""
        with self._lock:
            self._forget_expired()
            fresh = self._clock() + min(RENEWED_SECONDS, self._lifetime / 2)
            for session in self._sessions.values():
                if session.machine == machine_id and session.expires > fresh:
                    return session
            keys = Credentials(f"ASIA{secrets.token_hex(8).upper()}", secrets.token_hex(32), secrets.token_hex(64))
            made = RoleSession(machine_id, keys, self._clock() + self._lifetime)
            self._sessions[keys.access_key] = made
            return made

    def find(self, access_key_id: str) -> Credentials | None:
        """The keys that go by this id, if they are still good."""
        with self._lock:
            self._forget_expired()
            found = self._sessions.get(access_key_id)
            return found.credentials if found else None

    def end(self, machine_id: str) -> None:
        """A machine has ended, and what it was given is good for nobody."""
        with self._lock:
            self._sessions = {key: one for key, one in self._sessions.items() if one.machine != machine_id}

    def _forget_expired(self) -> None:
        now = self._clock()
        self._sessions = {key: one for key, one in self._sessions.items() if one.expires > now}


def expect_permitted(environ: WSGIEnvironment, service: str) -> None:
    """Raises RefusedError unless a machine of a fleet may make this call, which is signed for that service."""
    permits = {"s3": _object, "sqs": _queue, "monitoring": _figures, "autoscaling": _ending}.get(service)
    if permits is None or not permits(environ):
        raise RefusedError("AccessDenied", "The role of the fleet's machines does not permit this")


def _object(environ: WSGIEnvironment) -> bool:
    """An object below the prefix; if it is a copy, of another one there."""
    paths = [environ["PATH_INFO"]]
    if source := environ.get("HTTP_X_AMZ_COPY_SOURCE"):
        paths.append("/" + unquote(source).lstrip("/"))
    return all(path.startswith(f"/{BUCKET}/{OBJECTS}/") and ".." not in path.split("/") for path in paths)


def _queue(environ: WSGIEnvironment) -> bool:
    return _json_call(environ) in QUEUES


def _figures(environ: WSGIEnvironment) -> bool:
    """In either of the protocols that CloudWatch's clients speak."""
    in_cbor = environ["PATH_INFO"] == f"/service/{FIGURES.replace('.', '/operation/')}"
    return not environ.get("QUERY_STRING") and (in_cbor or _json_call(environ) == FIGURES)


def _json_call(environ: WSGIEnvironment) -> str:
    """The call that a request in JSON makes, whose body can be read again; empty if moto could take it for another one,
    as it does with a body that looks like a form."""
    body = environ["wsgi.input"].read(min(int(environ.get("CONTENT_LENGTH") or 0), MAX_BYTES))
    environ["wsgi.input"] = io.BytesIO(body)
    try:
        whole = isinstance(json.loads(body), dict) and "Action" not in dict(parse_qsl(body.decode()))
    except ValueError:
        return ""
    return str(environ.get("HTTP_X_AMZ_TARGET", "")) if whole and not environ.get("QUERY_STRING") else ""


def _ending(environ: WSGIEnvironment) -> bool:
    return not environ.get("QUERY_STRING") and read_form(environ).get("Action") in ENDING
