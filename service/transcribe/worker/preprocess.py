"""Claims jobs, decodes them, detects the speech and cuts it into chunks, ahead of the model.

Memory stays flat: of each job a few chunks lie ready, then its thread and its decoder wait. Few long recordings
are open at once, so that a short one can always start.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from transcribe import logs
from transcribe.audio import cores
from transcribe.audio.chunking import VadOptions
from transcribe.audio.errors import AudioError, DecoderError
from transcribe.audio.recording import Hearing, Recording
from transcribe.config import ServiceConfig
from transcribe.engine import limit_threads
from transcribe.jobs import resume
from transcribe.jobs.database import is_transient
from transcribe.jobs.models import Job, JobError, LeftOut
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import WORKER, Store
from transcribe.worker.assembly import Assembly
from transcribe.worker.listener import Detectors, Listener, warnings
from transcribe.worker.resume import ChunksChangedError, DoneChunks
from transcribe.worker.scheduler import ActiveJob, ChunkScheduler

POLL_SECONDS = 0.02  # what a lost wake-up costs
# Recordings of each of these lengths (seconds, from and to) that are worked on at once; more stay in the queue. Those
# of the length of another are not kept waiting by them.
LONG_CLASSES = ((60.0, 600.0), (600.0, 3600.0), (3600.0, float("inf")))
LONG_JOBS = 4
RESERVED_FOR_OTHERS = 2  # that one key may not take while other keys are active
SPARE_JOBS = 8  # jobs beyond what fills the model's batch
LAST_TRY = 3  # a job that two workers died with is worked on alone, so that it takes no other job along
ALONE_AFTER = 5  # setbacks; one of them may be the cause
CLAIM_SECONDS = 1.0  # how often delayed jobs are looked for
KNOWN_WITHIN = 1.0  # seconds between a recording's estimated and true length, of which the queue need not know
# Recordings that are listened to at once. It is hundreds of short calls, between which threads take turns in Python:
# with many, all of them mostly wait for their turns, and the engine's thread does too.
LISTENING = 3
LONG = LONG_CLASSES[0][0]  # seconds, from which clients see the length while the recording is worked on


class Preprocessor:
    """Runs in threads of its own from `start` to `close`."""

    def __init__(
        self, config: ServiceConfig, store: Store, scheduler: ChunkScheduler, detectors: Detectors, *, rows: int
    ) -> None:
        """`rows` is the size of the model's batch."""
        self._config = config
        self._store = store
        self._scheduler = scheduler
        self._detectors = detectors
        self._most = rows + SPARE_JOBS
        self._closing = threading.Event()
        self._wakeups = store.listener(WORKER)
        self._processors = threading.BoundedSemaphore(cores.count())
        self._listening = threading.BoundedSemaphore(LISTENING)
        self._pool = ThreadPoolExecutor(self._most, thread_name_prefix="preprocess", initializer=one_thread)
        self._thread = threading.Thread(target=self._run, name="preprocess")
        self._suspect: Job | None = None  # claimed for its last attempt, and waiting for the others to end
        self._isolated: ActiveJob | None = None  # the same, being worked on
        self._seen: tuple[int, int] | None = None  # the store's version, and how many jobs were in progress
        self._next_claim = 0.0
        self._unsure = False  # whether the store may have what a claim took that failed
        self.failure: BaseException | None = None  # what ended the thread; the process must end as well

    def start(self) -> None:
        """Begins to claim."""
        self._thread.start()

    def stop_claiming(self) -> None:
        """Claims no further jobs; those already claimed are finished."""
        self._closing.set()

    def job_ended(self) -> None:
        """There is room for another job."""
        self._wakeups.wake()

    def close(self) -> None:
        """Ends all threads; the jobs must have been removed from the scheduler."""
        self._closing.set()
        self._wakeups.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        self._wakeups.close()
        if self._suspect:
            self._store.release(self._suspect.id, self._suspect.attempts)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    self._claim_if_changed()
                    self._wakeups.wait(POLL_SECONDS)
                except sqlite3.Error as error:
                    if not is_transient(error):
                        raise
                    logs.failure("store_not_usable", error)
                    self._closing.wait(CLAIM_SECONDS)
        except BaseException as error:
            self.failure = error
            logs.failure("preprocess_failed", error)
            self._scheduler.wake()

    def _claim_if_changed(self) -> None:
        """Claims jobs when the store changed, a job ended, or a delayed job may be due."""
        now = (self._store.version(), len(self._scheduler))
        if now == self._seen and time.monotonic() < self._next_claim:
            return
        self._remove_cancelled()
        if self._unsure:
            self._give_back_unsure()
        self._claim()
        self._seen = now[0], len(self._scheduler)
        self._next_claim = time.monotonic() + CLAIM_SECONDS

    def _remove_cancelled(self) -> None:
        running = self._store.running()
        for active in self._scheduler.all():
            if running.get(active.job.id) != active.job.attempts:
                self._scheduler.remove(active)

    def _give_back_unsure(self) -> None:
        """Gives back what a claim took whose commit was said to have failed: the disk may have it all the same."""
        known = {active.job.id: active.job.attempts for active in self._scheduler.all()}
        known |= {self._suspect.id: self._suspect.attempts} if self._suspect else {}
        for job_id, attempt in self._store.running().items():
            if known.get(job_id) != attempt:
                self._store.release(job_id, attempt)
        self._unsure = False

    def _claim(self) -> None:
        if self._isolating() or not self._store.queued():
            return
        self._unsure = True
        claimed = self._store.claim_all(self._left_out)
        self._unsure = False
        for job in claimed:
            if is_suspect(job):
                self._suspect = job
            else:
                self._open(job)

    def _left_out(self, claimed: Sequence[Job]) -> LeftOut | None:
        """What must not be claimed after those just `claimed`; None if nothing may."""
        active = [*(found.work for found in self._scheduler.all()), *(job.work for job in claimed)]
        if self._closing.is_set() or len(active) >= self._most or (claimed and is_suspect(claimed[-1])):
            return None
        full = [(a, b) for a, b in LONG_CLASSES if sum(a <= length < b for length in active) >= LONG_JOBS]
        keys = Counter([*(found.job.key_id for found in self._scheduler.all()), *(job.key_id for job in claimed)])
        most = self._most - RESERVED_FOR_OTHERS if self._scheduler.shared(keys) else self._most
        return LeftOut(full, [key for key, jobs in keys.items() if jobs >= most])

    def _isolating(self) -> bool:
        """Whether a suspect job (one that may have killed workers) blocks other claims; starts it once it is alone."""
        if self._isolated and self._isolated.discarded:
            self._isolated = None
        if self._suspect and not len(self._scheduler):
            self._isolated, self._suspect = self._open(self._suspect), None
        return bool(self._suspect or self._isolated)

    def _open(self, job: Job) -> ActiveJob:
        logs.event("job_started", job=job.id, attempt=job.attempts)
        try:
            assembly = self._resumed(job)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not is_transient(error):
                raise
            logs.failure("job_not_resumed", error)
            active = self._scheduler.add(job, Assembly())  # claimed as it is, somebody has to give it back
            self._scheduler.set_back(active, type(error).__name__)
            return active
        active = self._scheduler.add(job, assembly)
        self._pool.submit(self._preprocess, active)
        return active

    def _resumed(self, job: Job) -> Assembly:
        """What is done of the job already; nothing, if nobody can go on from what is stored."""
        if not job.resume:
            return Assembly()
        try:
            kept = self._store.segments(job.id)
            resume.check(job.resume, kept)
            return Assembly.resumed(job.resume, kept)
        except (sqlite3.Error, MemoryError):
            raise
        except Exception as error:
            logs.failure("job_restarted", error, job=job.id)
            self._store.restart(job.id, job.attempts)
            return Assembly()

    def _preprocess(self, active: ActiveJob) -> None:
        began = time.monotonic()
        try:
            try:
                self._chunks(active)
            except ChunksChangedError:
                logs.event("job_restarted", job=active.job.id)
                self._store.restart(active.job.id, active.job.attempts)
                self._scheduler.restart(active)
                self._chunks(active)
        except AudioError as error:
            found = JobError(error.message, "invalid_request_error", error.code, error.param, error.status)
            self._scheduler.fail(active, found)
        except Exception as error:
            logs.failure("preprocessing_failed", error)
            reason = str(error) if isinstance(error, DecoderError) else type(error).__name__
            self._scheduler.set_back(active, reason)
        else:
            logs.event("job_preprocessed", job=active.job.id, seconds=round(time.monotonic() - began, 3))

    def _chunks(self, active: ActiveJob) -> None:
        done = DoneChunks(active.assembly)
        listener = Listener.of(active.job, self._config, self._detectors, self._processors)
        options = active.job.options
        hearing = Hearing(options.channels, options.audio_stream, VadOptions.of(active.job.request.get("chunking")))
        path = self._config.temp / active.job.id
        with Recording(path, self._config.limits, self._detectors.vad, hearing, self._listening) as recording:
            steps, told = iter(recording), active.job.length
            while not active.discarded:
                with self._processors:  # not while `put` waits: a long file must not block short ones
                    chunks = next(steps, None)
                active.seconds = recording.seconds
                if recording.channels not in (None, active.channels):
                    active.channels = recording.channels
                    self._store.set_channels(active.job.id, active.job.attempts, recording.channels)
                if chunks is None:
                    done.check_all_seen()
                    active.assembly.coverage.note(recording.missing, warnings(recording, options))
                    self._tell_length(active, told, recording.seconds)
                    if listener:
                        with self._processors:
                            active.track = listener.track()
                    self._scheduler.mark_complete(active, recording.seconds)
                    return
                if recording.promised is not None:
                    told = self._tell_length(active, told, recording.promised)
                if not all(self._scheduler.put(active, chunk) for chunk in done.skip(chunks)):
                    return
                if listener:  # only now: meanwhile the model works on their text
                    with self._processors:
                        listener.hear(chunks)

    def _tell_length(self, active: ActiveJob, told: float, seconds: float) -> float:
        """Stores the recording's length if the queue or clients go by another so far, `told`; returns the one by which
        they go now. The end of the job stores it anyway, and a short clip does not wait for one more commit."""
        if abs(seconds - told) <= KNOWN_WITHIN and seconds < LONG:
            return told
        exact = round(seconds, 6)  # a sum of many blocks is off by less
        if exact != told:
            self._store.set_duration(active.job.id, active.job.attempts, exact)
        return exact


def is_suspect(job: Job) -> bool:
    """Whether the job may be what ended earlier workers."""
    return job.tries >= LAST_TRY or job.setbacks >= ALONE_AFTER


def one_thread() -> None:
    """Limits the calling thread to one core: the detector's small steps lose more by waiting for a second thread."""
    limit_threads(1)
