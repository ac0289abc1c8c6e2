"""What the parts of the feeder share."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from transcribe import logs
from transcribe.config import ServiceConfig
from transcribe.fleet import states
from transcribe.fleet.bucket import Bucket, code_of
from transcribe.fleet.documents import State, Status
from transcribe.fleet.layout import Layout
from transcribe.fleet.queues import TRIES, Queues
from transcribe.jobs.models import JobError
from transcribe.jobs.store import Store
from transcribe.jobs.tickets import Ticket

SUSPECT = 2  # deliveries from which on a job may be what ended its machine: it is worked on alone
FETCHED = ".fetch"  # the end of the name of a recording that is not complete
OTHERS = ("api", "feeder", "fleet")  # parts that have no say in where a recording is cut, and in what is stored of it
KEPT_LENGTHS = 50  # of the newest recordings
FRESH_SECONDS = 20.0  # a worker that has not reported for longer is not there
PACKAGE = Path(__file__).resolve().parents[1]


class Pause:
    """A time in which this machine takes no jobs, since it could not do the last one."""

    def __init__(self) -> None:
        self._end = 0.0

    def begin(self, seconds: float) -> None:
        """From now on, for so many seconds."""
        self._end = time.monotonic() + seconds

    @property
    def on(self) -> bool:
        """Whether it is not over yet."""
        return time.monotonic() < self._end


class Lengths:
    """How long the recordings are that came from each queue lately, in seconds of audio. Queues tell only how many
    messages wait, and they deliver them in no order, so that those which came stand for those which wait."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = {}

    def add(self, queue: str, seconds: float) -> None:
        """One came from the queue with this URL."""
        self._seen.setdefault(queue, deque(maxlen=KEPT_LENGTHS)).append(seconds)

    def mean(self, queue: str) -> float | None:
        """The queue's mean, or that of all where nothing came from it; None as long as nothing came at all."""
        found = list(self._seen.get(queue, ())) or [each for seen in self._seen.values() for each in seen]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True)
class Fleet:
    """The machine's part in its fleet. `leaving` is set when it takes no more jobs."""

    config: ServiceConfig
    store: Store
    bucket: Bucket
    queues: Queues
    machine: str
    program: str
    leaving: threading.Event = field(default_factory=threading.Event)
    pause: Pause = field(default_factory=Pause)
    lengths: Lengths = field(default_factory=Lengths)
    guard: threading.RLock = field(default_factory=threading.RLock)  # one thread at a time decides about a job

    @property
    def layout(self) -> Layout:
        """Where the objects lie."""
        return Layout(self.config.fleet.prefix)

    @property
    def ready_worker(self) -> dict[str, Any] | None:
        """What the worker has said of itself lately, if it is ready."""
        worker = self.store.worker() or {}
        fresh = time.time() - worker.get("updated", 0.0) <= FRESH_SECONDS
        return worker if fresh and worker.get("state") == "ready" else None

    @property
    def hold_seconds(self) -> int:
        """How long a message is kept from others without a sign of life."""
        return self.config.fleet.hold_seconds


def not_done(fleet: Fleet, ticket: Ticket, why: JobError | None) -> None:
    """Says in the job's state why this machine could not do it; another one may, unless this was the last try. Raises
    what the bucket raises."""

    def update(state: State) -> State:
        if state.over or state.machine != fleet.machine:
            return state
        status: Status = "dead" if ticket.count >= TRIES else "queued"
        return msgspec.structs.replace(state, status=status, machine="", error=why)

    states.change(fleet.bucket, fleet.layout, ticket.job, update)
    code = why.code if why else None
    logs.warning("job_not_done", job=ticket.job, code=code, delivery=ticket.count)


def program_digest() -> str:
    """Identifies the program that cuts recordings: only the same one can go on from where another left off."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] not in OTHERS:
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def trouble(doing: str, job: str = "") -> Iterator[None]:
    """Logs what goes wrong with one job, or with AWS: the next round tries again, and others go on."""
    try:
        yield
    except ClientError as error:
        logs.warning("aws_refused", doing=doing, job=job, code=code_of(error), call=error.operation_name)
    except Exception as error:
        logs.failure(f"{doing}_failed", error)
