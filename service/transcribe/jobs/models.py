"""What a job is, and its form in the store's tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import msgspec

from transcribe import logs
from transcribe.jobs.sqlite import sqlite3
from transcribe.types import DecodeOptions, Segment

Status = Literal["queued", "running", "done", "failed", "cancelled"]
UNFINISHED: tuple[Status, ...] = ("queued", "running")


@dataclass(frozen=True)
class JobError:
    """Why a job failed, in the words and with the HTTP status that its client gets."""

    message: str
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    status: int = 500


UNREADABLE = JobError("The stored record of this job cannot be read.", code="job_unreadable")


@dataclass(frozen=True)
class NewJob:
    """A job to be created.

    `estimate` is its audio's length in seconds and `channels` how many are heard each by itself, or 1, as far as they
    can be guessed; `request` is what else the client asked
    for (JSON values); jobs of one key with the same `fingerprint` are repeats; a `detached` job lives on without a
    client that waits; `callback` is the URL to call when it is over.
    """

    key_id: str
    options: DecodeOptions
    suffix: str = ""
    estimate: float = 0.0
    channels: int = 1
    request: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    detached: bool = False
    callback: str = ""
    id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def work(self) -> float:
        """Seconds of audio that the model will hear, as far as it can be guessed."""
        return self.estimate * self.channels


class Mark(NamedTuple):
    """What of a job tells that it has changed."""

    status: Status
    attempts: int
    progress: float


@dataclass(frozen=True)
class Job:
    """A job as stored. Moments are Unix times, lengths seconds; `attempts` identifies the current attempt."""

    id: str
    key_id: str
    status: Status
    options: DecodeOptions
    suffix: str
    created: float
    started: float | None
    finished: float | None
    attempts: int
    releases: int  # attempts that do not count, because the recording was not the cause of their end
    setbacks: int  # how many of those met a transient error
    duration: float | None
    estimate: float
    channels: int  # heard each by itself, or 1
    progress: float
    error: JobError | None
    language: str | None
    coverage: Mapping[str, Any] | None
    resume: Mapping[str, Any] | None  # where the next attempt goes on; see Assembly
    request: Mapping[str, Any]
    fingerprint: str
    detached: bool
    callback: str  # '' once it has been called

    @property
    def over(self) -> bool:
        """Whether the job has reached its final state."""
        return self.status not in UNFINISHED

    @property
    def mark(self) -> Mark:
        """What differs once the job has changed."""
        return Mark(self.status, self.attempts, self.progress)

    @property
    def tries(self) -> int:
        """Attempts that count: all but the releases."""
        return self.attempts - self.releases

    @property
    def length(self) -> float:
        """Seconds of audio: as decoded, or else as estimated."""
        return self.duration if self.duration is not None else self.estimate

    @property
    def work(self) -> float:
        """Seconds of audio that the model hears: each channel that is heard by itself counts."""
        return self.length * self.channels

    @property
    def left(self) -> float:
        """Those of them that are not done."""
        return max(self.length - self.progress, 0.0) * self.channels


@dataclass(frozen=True)
class Ending:
    """How an attempt went well: the language, the coverage report, and the seconds of audio."""

    language: str
    coverage: Mapping[str, Any]
    duration: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a job's current `attempt`: text to add (ids continue over the whole job) and the seconds of audio
    that are done. With `resume` (JSON values) a later attempt goes on from here; without, it starts over. With an
    `ending` the job is done."""

    job_id: str
    attempt: int
    segments: Sequence[Segment] = ()
    progress: float = 0.0
    resume: Mapping[str, Any] | None = None
    ending: Ending | None = None


@dataclass(frozen=True)
class LeftOut:
    """Jobs that must not be claimed now: those of the `keys`, and those whose seconds of audio are in one of the
    `lengths` (from, to)."""

    lengths: Sequence[tuple[float, float]] = ()
    keys: Collection[str] = ()


@dataclass(frozen=True)
class Bounds:
    """How much may wait at once: jobs, seconds of audio, and jobs of one key. `shared`: others may come with keys of
    their own, so that no key may fill the queue."""

    jobs: int
    audio_seconds: float
    key_jobs: int
    shared: bool = False


@dataclass(frozen=True)
class QueueStats:
    """The unfinished jobs: how many wait, how many run, and the seconds of audio that are left in both."""

    queued: int
    running: int
    seconds: float

    @property
    def jobs(self) -> int:
        """How many there are."""
        return self.queued + self.running


class QueueFullError(Exception):
    """A bound was reached: `bound` is jobs, audio_seconds, key_jobs or key_audio_seconds; `excess` the seconds of audio
    before there is room."""

    def __init__(self, bound: str, excess: float) -> None:
        super().__init__(f"the queue is full ({bound})")
        self.bound = bound
        self.excess = excess


JSON_COLUMNS: dict[str, Any] = {
    "options": msgspec.json.Decoder(DecodeOptions),
    "request": msgspec.json.Decoder(dict[str, Any]),
    "error": msgspec.json.Decoder(JobError),
    "coverage": msgspec.json.Decoder(dict[str, Any]),
    "resume": msgspec.json.Decoder(dict[str, Any]),
}
SEGMENT_DECODER = msgspec.json.Decoder(Segment)


def job_from(row: sqlite3.Row) -> Job:
    """A row of `jobs` as a Job; one that cannot be read is a failed job that says so."""
    try:
        return _job_from(row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        logs.failure("job_unreadable", error)
    nothing = {"options": DecodeOptions(language=None), "request": {}, "coverage": None, "resume": None}
    values = {name: row[name] for name in Job.__dataclass_fields__} | nothing
    return Job(**{**values, "detached": bool(row["detached"]), "status": "failed", "error": UNREADABLE})


def _job_from(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in Job.__dataclass_fields__}
    for name, decoder in JSON_COLUMNS.items():
        values[name] = None if values[name] is None else decoder.decode(values[name])
    return Job(**{**values, "detached": bool(row["detached"])})


def row_from(new: NewJob, created: float) -> dict[str, Any]:
    """The columns of a new job."""
    columns = {name: getattr(new, name) for name in NewJob.__dataclass_fields__}
    return {**columns, "options": to_json(new.options), "request": to_json(new.request), "created": created}


def to_json(value: object) -> str:
    """A value as it is stored in a JSON column; numbers of numpy become Python's, and so do kinds of str."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: Any) -> object:
    """What msgspec encodes in place of `value`; torch's version, for one, is a str of a class of its own."""
    return str(value) if isinstance(value, str) else value.item()
