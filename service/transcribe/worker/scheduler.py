"""The jobs that are being worked on, shared by the preprocessor, which cuts them into chunks, and the engine's loop.

Fairness is by seconds of audio: every job gets an equal share of the model while it is there, whoever came first, so a
short clip does not wait for a long file and a long file does not wait for an endless stream of clips.
"""

import threading
from collections import deque
from dataclasses import dataclass, field

from transcribe.audio.chunking import AudioChunk
from transcribe.jobs.models import Job, JobError
from transcribe.worker.assembly import Assembly

AHEAD = 3  # pieces of a job that are heard before the model wants them: bounds memory


@dataclass(eq=False)
class Active:
    """A claimed job. Only the Board changes `pieces`, `count`, `error` and `gone`; the rest is the engine loop's."""

    job: Job
    turn: float = 0.0  # the virtual time of its next piece; the smallest goes first
    pieces: deque[tuple[int, AudioChunk]] = field(default_factory=deque)
    heard: int = 0  # pieces so far
    seconds: float = 0.0  # of the recording so far
    complete: bool = False  # all of it is heard
    error: JobError | None = None
    gone: bool = False  # cancelled, failed or given back: nobody wants it any more
    flying: dict[int, AudioChunk] = field(default_factory=dict)  # in the engine
    assembly: Assembly = field(default_factory=Assembly)

    @property
    def finished(self) -> bool:
        """All of it is heard and written."""
        return self.complete and self.assembly.done == self.heard

    @property
    def waits_for_language(self) -> bool:
        """The language is still being found out, from the first piece alone, so that a job has one language."""
        return self.job.options.language is None and self.assembly.language is None and bool(self.flying)


class Board:
    """All active jobs. Every method may be called from any thread."""

    def __init__(self, *, most_flying: int) -> None:
        self._most_flying = most_flying  # pieces of one job in the engine: the rest of its places are for others
        self._changed = threading.Condition()
        self._jobs: dict[str, Active] = {}
        self._now = 0.0  # virtual: how many seconds of audio a job that was always there has been given

    def __len__(self) -> int:
        with self._changed:
            return len(self._jobs)

    def all(self) -> list[Active]:
        """The active jobs."""
        with self._changed:
            return list(self._jobs.values())

    def open(self, job: Job) -> Active:
        """Adds a job that was just claimed."""
        with self._changed:
            active = Active(job, turn=self._now)
            self._jobs[job.id] = active
            return active

    def remove(self, active: Active) -> None:
        """The job is over here: whoever still hears it stops."""
        with self._changed:
            active.gone = True
            active.pieces.clear()
            if self._jobs.get(active.job.id) is active:
                del self._jobs[active.job.id]
            self._changed.notify_all()

    def put(self, active: Active, piece: AudioChunk) -> bool:
        """Adds the next piece, waiting while enough of the job lies ready. False if nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: active.gone or len(active.pieces) < AHEAD)
            if active.gone:
                return False
            active.pieces.append((active.heard, piece))
            active.heard += 1
            self._changed.notify_all()
            return True

    def heard_all(self, active: Active, seconds: float) -> None:
        """The recording ended."""
        with self._changed:
            active.seconds, active.complete = seconds, True
            self._changed.notify_all()

    def fail(self, active: Active, error: JobError) -> None:
        """The recording cannot be used."""
        with self._changed:
            active.error = error
            self._changed.notify_all()

    def take(self) -> tuple[Active, int, AudioChunk] | None:
        """The piece that the model should hear next, or None. It counts as flying from here on."""
        with self._changed:
            ready = [active for active in self._jobs.values() if self._may_fly(active)]
            if not ready:
                return None
            active = min(ready, key=lambda candidate: candidate.turn)
            number, piece = active.pieces.popleft()
            active.flying[number] = piece
            length = piece.end - piece.start
            active.turn = max(active.turn, self._now) + length
            self._now += length / len(self._jobs)
            self._changed.notify_all()
            return active, number, piece

    def _may_fly(self, active: Active) -> bool:
        if not active.pieces or active.waits_for_language or active.error:
            return False
        return len(active.flying) < self._most_flying

    def wait(self, seconds: float) -> None:
        """Returns when something changed, or after so long."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """Ends `wait` early."""
        with self._changed:
            self._changed.notify_all()
