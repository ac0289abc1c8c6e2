"""What the parts of the feeder share."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from botocore.exceptions import ClientError

from transcribe import logs
from transcribe.config import ServiceConfig
from transcribe.fleet.bucket import Bucket, code_of
from transcribe.fleet.layout import Layout
from transcribe.fleet.queues import Queues
from transcribe.jobs.store import Store

FETCHED = ".fetch"  # the end of the name of a recording that is not complete
OTHERS = ("api", "feeder", "fleet")  # parts that have no say in where a recording is cut, and in what is stored of it
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
    guard: threading.RLock = field(default_factory=threading.RLock)  # one thread at a time decides about a job

    @property
    def layout(self) -> Layout:
        """Where the objects lie."""
        return Layout(self.config.fleet.prefix)

    @property
    def hold_seconds(self) -> int:
        """How long a message is kept from others without a sign of life."""
        return self.config.fleet.hold_seconds


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
