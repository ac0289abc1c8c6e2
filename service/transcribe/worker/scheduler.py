"""Chooses the next chunk for the engine from the jobs in progress.

Preprocessing threads add chunks; the engine's loop takes them. The API keys share the model by seconds of audio, and
the jobs of a key share what their key gets, regardless of arrival order. A short clip does not wait for a long file, a
long file does not wait for an endless stream of clips, and no key waits for another's queue.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

from transcribe.audio.chunking import AudioChunk
from transcribe.engine.chunks import BRIEF_SECONDS
from transcribe.jobs.models import Job, JobError
from transcribe.speakers.track import Track
from transcribe.types import Segment
from transcribe.worker.assembly import Assembly
from transcribe.worker.pieces import Pieces

READY_CHUNKS = 3  # chunks of one job that may wait for the engine: bounds memory
REMEMBERED_SECONDS = 600.0  # how long a key without jobs still counts as active


@dataclass(eq=False)
class ActiveJob:
    """A claimed job. The ChunkScheduler alone changes `chunks`, `chunk_count`, `error`, `setback` and `discarded`; the
    engine's loop changes the rest, and the keeper `unsaved`."""

    job: Job
    pieces: Pieces
    turn: float = 0.0  # its key's virtual time at which its next chunk is due; the smallest goes first
    chunks: deque[tuple[int, AudioChunk]] = field(default_factory=deque)
    chunk_count: int = 0  # chunks cut so far
    seconds: float = 0.0  # of the recording, as far as it is decoded
    channels: int = 1  # heard each by itself, or 1, as far as is known
    complete: bool = False  # the whole recording is cut into chunks
    error: JobError | None = None  # what is wrong with the recording
    setback: str = ""  # a transient error; another attempt may succeed
    discarded: bool = False  # cancelled, failed or released: its results are no longer wanted
    unsaved: int = 0  # outcomes that are on their way to the store; see Keeper
    in_flight: dict[int, AudioChunk] = field(default_factory=dict)  # chunks in the engine, by number
    ahead: int | None = None  # the chunk that went before the other keys' chunks
    assembly: Assembly = field(default_factory=Assembly)
    track: Track | None = None  # who speaks when, once all was heard, if voices are to tell
    turns: Future[list[Segment]] | None = None  # the text as its speakers' turns, once it is being cut

    @property
    def finished(self) -> bool:
        """Every chunk of the recording has been transcribed."""
        return self.complete and self.assembly.done == self.chunk_count

    @property
    def waits_for_language(self) -> bool:
        """The first chunk of a channel, from which the language of the rest is detected, is still in the engine, and
        the next is of the same channel."""
        options = self.job.options
        channel = self.chunks[0][1].channel if self.chunks else None
        if options.multilingual or options.language is not None or self.assembly.language_of(channel) is not None:
            return False
        return any(chunk.channel == channel for chunk in self.in_flight.values())

    @property
    def work(self) -> float:
        """The seconds of audio that it has for the model, as far as is known."""
        return max(self.job.length, self.seconds) * self.channels


@dataclass(eq=False)
class Share:
    """What a key gets of the model. Start-time fair queueing (Goyal, Vin and Cheng, 1996) between keys, which are few;
    their jobs come and go without end, and share their key's time as it passes."""

    seen: float = 0.0  # when a job of the key came last
    turn: float = 0.0  # virtual time at which the key's next chunk is due, unless that is past
    now: float = 0.0  # virtual time of its jobs: the seconds of audio that one present from the start has been given


class ChunkScheduler:
    """The jobs in progress. Every method may be called from any thread."""

    def __init__(self, *, max_in_flight: int, ready: int = READY_CHUNKS, ahead: bool = False) -> None:
        """`ready` chunks of a job may wait for the engine. `ahead` lets a brief chunk go before other keys' chunks: on
        a processor, which does one thing at a time."""
        self._ready = ready
        self._ahead = ahead
        self._went_ahead = False  # a chunk that did was in the engine when the last was asked for
        self._max_in_flight = max_in_flight  # chunks of one job, or of one key among several, in the engine at once
        self._shares: dict[str, Share] = {}  # of keys that have jobs, or had some recently
        self._changed = threading.Condition()
        self._changes = 0  # each of which ends one `wait`
        self._jobs: dict[str, ActiveJob] = {}
        self._now = 0.0  # virtual time of the keys: when the last chunk was due

    def __len__(self) -> int:
        with self._changed:
            return len(self._jobs)

    def all(self) -> list[ActiveJob]:
        """The jobs in progress."""
        with self._changed:
            return list(self._jobs.values())

    def add(self, job: Job, assembly: Assembly) -> ActiveJob:
        """Adds a job that was just claimed, and of which `assembly` has what is done."""
        with self._changed:
            share = self._shares.setdefault(job.key_id, Share())
            share.seen = time.monotonic()
            active = ActiveJob(job, Pieces(job.options, assembly.chances), share.now)
            active.assembly, active.chunk_count, active.channels = assembly, assembly.done, job.channels
            self._jobs[job.id] = active
            return active

    def remove(self, active: ActiveJob) -> None:
        """Removes the job and discards its chunks; its preprocessing stops."""
        with self._changed:
            active.discarded = True
            active.chunks.clear()
            if self._jobs.get(active.job.id) is active:
                del self._jobs[active.job.id]
            self._tell()

    def put(self, active: ActiveJob, chunk: AudioChunk) -> bool:
        """Adds the job's next chunk; blocks while as many of it wait as may. Returns False if the job was discarded."""
        with self._changed:
            self._changed.wait_for(lambda: active.discarded or len(active.chunks) < self._ready)
            if active.discarded:
                return False
            active.chunks.append((active.chunk_count, chunk))
            active.chunk_count += 1
            self._tell()
            return True

    def mark_complete(self, active: ActiveJob, seconds: float) -> None:
        """Records that the job has no further chunks, and the length of its recording."""
        with self._changed:
            active.seconds, active.complete = seconds, True
            self._tell()

    def fail(self, active: ActiveJob, error: JobError) -> None:
        """Records why the recording cannot be used."""
        with self._changed:
            active.error = error
            self._tell()

    def set_back(self, active: ActiveJob, reason: str) -> None:
        """Records a transient error: the job needs another attempt."""
        with self._changed:
            active.setback = reason
            self._tell()

    def restart(self, active: ActiveJob) -> None:
        """Discards the results of earlier attempts."""
        with self._changed:
            active.assembly, active.chunk_count = Assembly(), 0
            active.pieces = Pieces(active.job.options, {})

    def next_chunk(self, *, ahead: bool = False) -> tuple[ActiveJob, int, AudioChunk] | None:
        """The chunk to transcribe next, with its job and number, or None. It is in flight from now on. `ahead` asks
        only for what goes before other keys' chunks."""
        with self._changed:
            in_flight = Counter({active.job.key_id: 0 for active in self._jobs.values()})
            for active in self._jobs.values():
                in_flight[active.job.key_id] += len(active.in_flight)
            first = next((one.job.key_id for one in self._jobs.values() if one.ahead in one.in_flight), None)
            free = self._ahead and first is None and not self._went_ahead and any(in_flight.values())
            self._went_ahead = first is not None  # never two, one after the other: the rest must go on
            waiting = {key for key, count in in_flight.items() if self._must_wait(key, count, first)}
            ready = [one for one in self._jobs.values() if self._may_start(one) and one.job.key_id not in waiting]
            brief = [one for one in ready if free and not in_flight[one.job.key_id] and is_brief(one.chunks[0][1])]
            if not (ready := brief if ahead else ready):
                return None
            active = min(ready, key=self._due)
            number, chunk = active.chunks.popleft()
            active.in_flight[number] = chunk
            if active in brief:
                active.ahead, self._went_ahead = number, True
            self._charge(active, chunk.end - chunk.start)
            self._tell()
            return active, number, chunk

    def _due(self, active: ActiveJob) -> tuple[float, float]:
        """When the job's next chunk is: first its key's turn, then its own among the key's jobs."""
        return max(self._now, self._shares[active.job.key_id].turn), active.turn

    def _charge(self, active: ActiveJob, seconds: float) -> None:
        """Notes that the job was given so much."""
        share = self._shares[active.job.key_id]
        self._now, _ = self._due(active)
        share.turn = self._now + seconds
        active.turn = max(active.turn, share.now) + seconds
        share.now += seconds / sum(other.job.key_id == active.job.key_id for other in self._jobs.values())

    def _must_wait(self, key: str, in_flight: int, first: str | None) -> bool:
        """Whether a key with so many chunks in the engine gets no more: it has its share, or a chunk of the key `first`
        goes ahead. A key that has none there waits for nobody."""
        if in_flight >= self._max_in_flight and self._shared():
            return True
        return in_flight > 0 and first is not None and key != first

    def shared(self, others: Collection[str] = ()) -> bool:
        """Whether several keys, the `others` included, have jobs, or had some recently: then none may take the whole
        batch."""
        with self._changed:
            return self._shared(others)

    def _shared(self, others: Collection[str] = ()) -> bool:
        old = time.monotonic() - REMEMBERED_SECONDS
        working = {active.job.key_id for active in self._jobs.values()}
        self._shares = {key: one for key, one in self._shares.items() if one.seen > old or key in working}
        return len({*self._shares, *others}) > 1

    def _may_start(self, active: ActiveJob) -> bool:
        if not active.chunks or active.waits_for_language or active.error or active.setback:
            return False
        return len(active.in_flight) < self._max_in_flight

    @property
    def changes(self) -> int:
        """How many changes there were so far; for `wait`."""
        return self._changes

    def wait(self, seen: int, seconds: float) -> None:
        """Returns when there were more changes than `seen`, or after so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, seconds)

    def wake(self) -> None:
        """Ends `wait` early."""
        with self._changed:
            self._tell()

    def _tell(self) -> None:
        self._changes += 1
        self._changed.notify_all()


def is_brief(chunk: AudioChunk) -> bool:
    """Whether the chunk may go before others."""
    return chunk.end - chunk.start <= BRIEF_SECONDS
