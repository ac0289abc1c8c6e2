"""The long-lived inference process: one loop that keeps the engine full and writes what it says.

Other threads claim and preprocess recordings (preprocess.py) and report (status.py); only this one uses the engine.
An error of the engine ends the process: systemd starts a new one, and the store gives the jobs back to it.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from transcribe import logs, memory
from transcribe.audio.chunking import AudioChunk
from transcribe.config import ServiceConfig
from transcribe.engine import Chunk, ChunkResult, Engine, EngineError, limit_threads
from transcribe.jobs.models import Ending, JobError, Outcome
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import LONGEST_DELAY, Store
from transcribe.speakers import words
from transcribe.speakers.track import Track
from transcribe.types import Segment
from transcribe.worker.keeper import RETRY_SECONDS, Keeper, until_stored
from transcribe.worker.listener import Detectors
from transcribe.worker.preprocess import Preprocessor
from transcribe.worker.scheduler import READY_CHUNKS, ActiveJob, ChunkScheduler
from transcribe.worker.status import StatusReporter

DRAIN_SECONDS = 25.0  # to finish what is under way after SIGTERM; the rest is given back
IDLE_SECONDS = 0.5
REST_SECONDS = 20.0  # without work, until memory is given back
BUSY_SECONDS = 300.0  # between two times while there is work
PATIENCE = 20  # setbacks before a job fails: a quarter of an hour
SERVER_ERROR = "The server could not work on this recording"
Answer = TypeVar("Answer")
RESERVE_SHARE = 8  # one place in so many is kept from a single long recording, so that a short one finds it free


class Worker:
    """Works until `stop` is called."""

    def __init__(
        self, config: ServiceConfig, store: Store, engine: Engine, detectors: Detectors, reporter: StatusReporter
    ) -> None:
        places = engine.rows
        self._store = store
        self._engine = engine
        self._reporter = reporter
        self._default_language = config.model.language or "en"
        most = max(1, places - max(1, places // RESERVE_SHARE))
        ready, ahead = max(READY_CHUNKS, engine.windows), engine.windows == 1
        self._scheduler = ChunkScheduler(max_in_flight=most, ready=ready, ahead=ahead)
        self._preprocessor = Preprocessor(config, store, self._scheduler, detectors, rows=places)
        self._keeper = Keeper(store, self._kept, self._scheduler.wake)
        self._in_flight: dict[tuple[Any, ...], ActiveJob] = {}  # by (job, attempt, chunk, …): the engine's keys
        self._cutter = ThreadPoolExecutor(1, thread_name_prefix="turns")  # hours of words keep no other job waiting
        self._worked: float | None = None  # when the engine made its last step since memory was given back
        self._given_back = time.monotonic()
        self._deadline: float | None = None
        self._stopping = False

    def stop(self) -> None:
        """Asks for an end: nothing new, what can be finished within DRAIN_SECONDS is. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """The loop. Raises what the engine raises: the process must end then."""
        failure: BaseException | None = None
        if self._engine.device == "cuda":  # a few small copies are left to do here, after which threads would spin
            limit_threads(1)
        self._preprocessor.start()
        self._keeper.start()
        try:
            while not self._over():
                self._reporter.heartbeat()
                if found := self._preprocessor.failure or self._keeper.failure:
                    raise found
                seen = self._scheduler.changes
                self._clear()
                self._feed()
                if self._in_flight and not self._keeper.full:
                    self._step()
                else:
                    self._scheduler.wait(seen, IDLE_SECONDS if self._deadline is None else 0.05)
                self._give_back_memory()
        except BaseException as error:
            failure = error
            raise
        finally:
            self._keeper.close()
            self._give_back(failure)
            self._preprocessor.close()
            self._cutter.shutdown(cancel_futures=True)

    def _give_back_memory(self) -> None:
        """Returns free memory to the machine: after a while without work, and, so that holes in the heap do not add up,
        from time to time where there is always some."""
        now = time.monotonic()
        if self._worked and (now - self._worked > REST_SECONDS or now - self._given_back > BUSY_SECONDS):
            self._engine.rest()
            memory.give_back()
            self._worked, self._given_back = None, now

    def _over(self) -> bool:
        if self._stopping and self._deadline is None:
            self._deadline = self._keeper.give_up = time.monotonic() + DRAIN_SECONDS
            self._preprocessor.stop_claiming()
            self._reporter.set_state("draining")
            logs.event("draining", jobs=len(self._scheduler))
        return self._deadline is not None and (not len(self._scheduler) or time.monotonic() > self._deadline)

    def _clear(self) -> None:
        """Takes care of jobs that are over: cancelled, unusable, or all written."""
        for key in [key for key, active in self._in_flight.items() if active.discarded]:
            self._engine.discard(key)
            del self._in_flight[key]
        for active in self._scheduler.all():
            if active.unsaved:  # first of all that is written
                continue
            if active.error:
                self._fail(active, active.error)
            elif active.setback:
                self._set_back(active)
            elif active.finished:
                self._finish(active)

    def _feed(self) -> None:
        """As many chunks as are encoded together. On a processor one, and beside one that waits only what goes ahead of
        it: a short recording never stands behind many long chunks."""
        for _ in range(self._engine.windows):
            behind = self._engine.windows == 1 and self._engine.waiting > 0
            if not self._engine.room() or (taken := self._scheduler.next_chunk(ahead=behind)) is None:
                return
            self._add(*taken)

    def _add(self, active: ActiveJob, number: int, chunk: AudioChunk) -> None:
        language = active.job.options.language or active.assembly.language_of(chunk.channel)
        self._give(active, active.pieces.begin(number, chunk, language))

    def _give(self, active: ActiveJob, pieces: Sequence[Chunk]) -> None:
        for piece in pieces:
            assert isinstance(piece.key, tuple)
            key = (active.job.id, active.job.attempts, *piece.key)
            try:
                self._engine.add(replace(piece, key=key, ahead=piece.key[0] == active.ahead))
            except EngineError as error:
                if error.broken:
                    raise
                self._fail(active, JobError(str(error), "invalid_request_error", "unsupported", None, 400))
                return
            self._in_flight[key] = active

    def _step(self) -> None:
        began = time.monotonic()
        chunks = len(self._in_flight)
        results = self._engine.step()
        self._worked = time.monotonic()
        self._reporter.meter.worked(self._worked - began, chunks)
        for result in results:
            assert isinstance(result.key, tuple)
            active = self._in_flight.pop(result.key)
            if active.discarded:
                continue
            following, whole = active.pieces.take(replace(result, key=result.key[2:]))
            self._give(active, following)
            if whole is not None:
                self._write(active, whole)

    def _write(self, active: ActiveJob, result: ChunkResult) -> None:
        assert isinstance(result.key, int)
        number = result.key
        chunk = active.in_flight.pop(number)
        self._reporter.meter.wrote(chunk.end - chunk.start)
        self._count(result, active)
        done = active.assembly.done
        options = active.job.options
        segments = active.assembly.add(number, chunk, result, options.prompt, options.hotwords)
        if active.finished and active.track is None:
            self._end(active, segments + active.assembly.flush())
        elif active.assembly.done > done:
            self._save(active, segments)

    def _save(self, active: ActiveJob, segments: list[Segment]) -> None:
        job, assembly = active.job, active.assembly
        self._keeper.add(active, Outcome(job.id, job.attempts, segments, assembly.progress, assembly.state()))

    def _end(self, active: ActiveJob, segments: list[Segment]) -> None:
        job = active.job
        ending = Ending(self._language(active), active.assembly.coverage.report(), round(active.seconds, 6))
        self._keeper.add(active, Outcome(job.id, job.attempts, segments, ending=ending))

    def _kept(self, active: ActiveJob, outcome: Outcome, counts: bool) -> None:
        """What follows when an outcome is in the store; called by the keeper."""
        if not counts:  # cancelled or deleted meanwhile
            self._remove(active)
        elif outcome.ending:
            self._done(active)

    def _remove(self, active: ActiveJob) -> None:
        self._scheduler.remove(active)
        self._preprocessor.job_ended()

    def _language(self, active: ActiveJob) -> str:
        return active.job.options.language or active.assembly.language or self._default_language

    def _count(self, result: ChunkResult, active: ActiveJob) -> None:
        asked = active.job.options.temperature
        fallbacks = sum(segment.temperature > asked for segment in result.segments)
        self._reporter.meter.totals["fallback_segments_total"] += fallbacks

    def _finish(self, active: ActiveJob) -> None:
        rest = active.assembly.flush()
        if active.track is None:
            self._end(active, rest)
        elif rest:
            self._save(active, rest)
        elif self._cut(active, active.track):
            self._finish_in_turns(active)

    def _finish_in_turns(self, active: ActiveJob) -> None:
        """The end of a job whose text was cut where the speaker changes."""
        assert active.turns is not None
        job, language, report = active.job, self._language(active), active.assembly.coverage.report()
        length = round(active.seconds, 6)
        try:
            segments = active.turns.result()
        except Exception as error:  # no fault of the other jobs
            logs.failure("speakers_not_assigned", error)
            self._scheduler.set_back(active, type(error).__name__)
            return
        counts = self._persist(
            lambda: self._store.finish(
                job.id, job.attempts, language=language, coverage=report, duration=length, segments=segments
            )
        )
        if counts:
            self._done(active)
        else:  # cancelled or deleted meanwhile
            self._remove(active)

    def _done(self, active: ActiveJob) -> None:
        self._remove(active)
        totals = self._reporter.meter.totals
        totals["jobs_done_total"] += 1
        totals["dropped_segments_total"] += active.assembly.coverage.count
        logs.event("job_done", job=active.job.id, audio_seconds=round(active.seconds, 2), chunks=active.chunk_count)

    def _cut(self, active: ActiveJob, track: Track) -> bool:
        """Whether the job's segments are cut where the speaker changes; it begins with that if nobody has."""
        if active.turns is None:
            segments = self._persist(lambda: self._store.segments(active.job.id))
            active.turns = self._cutter.submit(words.assign, segments, track, self._engine.encode)
            active.turns.add_done_callback(lambda _: self._scheduler.wake())
        return active.turns.done()

    def _fail(self, active: ActiveJob, error: JobError) -> None:
        job = active.job
        counts = self._persist(lambda: self._store.fail(job.id, job.attempts, error))
        self._remove(active)
        if counts:
            self._reporter.meter.totals["jobs_failed_total"] += 1
            logs.event("job_failed", job=job.id, code=error.code)

    def _set_back(self, active: ActiveJob) -> None:
        """Gives the job another attempt later; after many it fails."""
        job = active.job
        if job.setbacks >= PATIENCE:
            self._fail(
                active, JobError(f"{SERVER_ERROR} after {PATIENCE} attempts ({active.setback}).", code="setbacks")
            )
            return
        delay = min(2.0 ** (job.setbacks + 1), LONGEST_DELAY)
        self._persist(lambda: self._store.release(job.id, job.attempts, delay=delay))
        self._remove(active)
        logs.warning("job_set_back", job=job.id, reason=active.setback, again_in_seconds=delay)

    def _give_back(self, failure: BaseException | None) -> None:
        """What is not finished when the loop ends after `stop`, or because memory is short, goes back into the queue;
        otherwise the next worker's start counts the attempt."""
        delay = 2.0 if failure and is_out_of_memory(failure) else None
        for active in self._scheduler.all():
            if self._deadline is not None or delay is not None:
                with contextlib.suppress(sqlite3.Error):  # then the attempt counts
                    self._store.release(active.job.id, active.job.attempts, delay=delay)
            self._scheduler.remove(active)

    def _persist(self, access: Callable[[], Answer]) -> Answer:
        """Calls `access` until the store answers; see until_stored."""
        return until_stored(access, lambda: bool(self._deadline and time.monotonic() > self._deadline), self._rest)

    def _rest(self) -> None:
        self._reporter.heartbeat()  # that the store does not answer is no fault of this process
        time.sleep(RETRY_SECONDS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine, or its GPU, had no memory left; torch has no type of its own for the former."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)
