"""The documents about a job in the bucket and in the queue, as JSON.

Machines of two versions may share a queue: a field that is not known is passed over, and a new one has a default.
Moments are Unix times of whoever wrote them and are only shown; nothing is decided by comparing clocks.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from transcribe.fleet.layout import JOB
from transcribe.jobs.models import JobError, to_json
from transcribe.types import DecodeOptions, Segment

Status = Literal["queued", "running", "dead", "done", "failed", "cancelled"]
End = Literal["done", "failed", "cancelled"]
FINAL = ("done", "failed", "cancelled")
UNREADABLE = "unreadable"  # what the feeder says of a document that is not what it should be
GIVEN_UP = JobError(
    "Several machines have taken this recording, and none could say why it was not done: they were lost or cut off.",
    code="job_given_up",
)
JobId = Annotated[str, msgspec.Meta(pattern=rf"\A{JOB.pattern}\Z")]  # it becomes part of keys and of names of files


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object in the bucket or in a message."""

    def encoded(self) -> bytes:
        """As it is stored."""
        return to_json(self).encode()


class Request(Document, frozen=True):
    """What is to be done with a recording. `owner` is whose it is; `sha256` is '' where nobody has read all of it;
    `seconds` is its length as far as it can be guessed; `request` is what else the client asked for."""

    job: JobId
    owner: str
    options: DecodeOptions
    default_language: bool = False  # that of the machine which does it
    sha256: str = ""
    bytes: int = 0
    seconds: float = 0.0
    channels: int = 1  # heard each by itself, as far as they are known
    suffix: str = ""
    name: str = ""  # of the file that was sent, to be shown
    request: dict[str, Any] = {}
    callback: str = ""
    speakers: int = 0  # reference recordings of known voices
    priority: bool = False
    created: float = 0.0


class Message(Document, frozen=True):
    """A job's turn in the queue, and how many seconds of audio it is, for who decides how many machines there are."""

    job: JobId
    seconds: float = 0.0


class State(Document, frozen=True):
    """How far a job is. `sent`: its message is in the queue for certain. `machine` and `message` are who holds it and
    by which message; `attempts` counts the deliveries of that message; `progress` is seconds of audio done. `signs`
    counts who holds it saying so, so that each time the object is a new one, whose age is what others look at. Of a job
    that is over it says all but its text, which may be long."""

    job: JobId
    owner: str
    status: Status = "queued"
    sent: bool = False
    machine: str = ""
    message: str = ""
    signs: int = 0
    attempts: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    name: str = ""
    priority: bool = False
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    error: JobError | None = None
    language: str = ""  # this and what follows: as in the outcome
    coverage: dict[str, Any] | None = None
    speed: float = 0.0
    dollars_per_hour: float | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, for good."""
        return self.status in FINAL


class Outcome(Document, frozen=True):
    """How a job ended. The first that is written counts, whoever wrote it."""

    job: JobId
    owner: str
    status: End
    task: str = "transcribe"
    model: str = ""
    language: str = ""
    duration: float = 0.0  # seconds of audio
    segments: tuple[Segment, ...] = ()
    coverage: dict[str, Any] | None = None
    error: JobError | None = None
    machine: str = ""
    attempts: int = 1
    started: float | None = None
    finished: float = 0.0
    speed: float = 0.0  # seconds of audio a second, as the machine measured
    dollars_per_hour: float | None = None  # of audio, where the machine knows its price


class Checkpoint(Document, frozen=True):
    """The text of a job so far, and where to go on. It is good only for the same program and the same model, since
    only they cut the recording in the same way."""

    job: JobId
    program: str
    revision: str
    progress: float
    duration: float | None
    resume: Mapping[str, Any]
    segments: tuple[Segment, ...]


Kind = TypeVar("Kind", bound=Document)


class UnreadableError(ValueError):
    """A document is not what it should be. The message is one line."""


def decoded(data: bytes, kind: type[Kind]) -> Kind:
    """The document. Raises UnreadableError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:  # ValidationError is one
        raise UnreadableError(f"no {kind.__name__.lower()}: {error}") from None
