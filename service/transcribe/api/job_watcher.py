"""Lets requests wait for jobs without each polling the store: one thread watches for commits.

It also keeps the figures that /health shows, so that /health never waits for the disk.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from transcribe import logs
from transcribe.jobs.models import Job, QueueStats
from transcribe.jobs.store import Store

POLL_SECONDS = 0.02
STALE_SECONDS = 20.0  # a worker that has not reported for this long counts as absent
GRACE_SECONDS = 15.0  # how long a request's job outlives its client, which may be about to retry


@dataclass(frozen=True)
class Snapshot:
    """The latest state of the store: the unfinished jobs, the queue and the worker's facts."""

    jobs: dict[str, Job] = field(default_factory=dict)
    queue: QueueStats = field(default_factory=lambda: QueueStats(0, 0, 0.0))
    worker: dict[str, Any] = field(default_factory=dict)
    taken: float = 0.0

    @property
    def worker_state(self) -> str:
        """loading | ready | draining | broken | absent. A worker that ended because it is broken stays so."""
        if self.worker.get("state") == "broken":
            return "broken"
        if not self.worker or time.time() - self.worker.get("updated", 0.0) > STALE_SECONDS:
            return "absent"
        return str(self.worker.get("state", "absent"))

    @property
    def speed(self) -> float:
        """Seconds of audio that the worker gets through in a second; a cautious 1 until it has measured."""
        return max(float(self.worker.get("speed") or 1.0), 0.01)


class JobWatcher:
    """Wakes waiting requests when a job changed, and cancels the jobs of clients that disconnected."""

    def __init__(self, store: Store, *, grace: float = GRACE_SECONDS) -> None:
        self._store = store
        self._grace = grace
        self._changed = threading.Condition()
        self._snapshot = Snapshot()
        self._followers: dict[str, int] = {}
        self._leaving: dict[str, float] = {}  # job → when to end it
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Reads the first snapshot and starts the thread. Jobs whose clients waited on an earlier process get the
        same grace as those whose client just left."""
        self._refresh()
        end = time.monotonic() + self._grace
        self._leaving = {job.id: end for job in self._snapshot.jobs.values() if not job.detached}
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    @property
    def snapshot(self) -> Snapshot:
        """The latest figures."""
        return self._snapshot

    @property
    def alive(self) -> bool:
        """The thread is doing its work."""
        return self._thread.is_alive() and time.time() - self._snapshot.taken < STALE_SECONDS

    def wait(self, seen: Snapshot, seconds: float) -> Snapshot:
        """The first snapshot after `seen`, or `seen` again when the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._snapshot is not seen, seconds)
            return self._snapshot

    def follow(self, job_id: str) -> None:
        """Registers a client that waits for this job."""
        with self._changed:
            self._followers[job_id] = self._followers.get(job_id, 0) + 1
            self._leaving.pop(job_id, None)

    def leave(self, job_id: str) -> None:
        """Removes the client. When the last one has left and none returns, the job is cancelled unless detached."""
        with self._changed:
            self._followers[job_id] -= 1
            if not self._followers[job_id]:
                del self._followers[job_id]
                self._leaving[job_id] = time.monotonic() + self._grace

    def _run(self) -> None:
        version, pause = None, POLL_SECONDS
        while not self._stop.wait(pause):
            try:
                current, began = self._store.version(), time.monotonic()
                if current != version or time.time() - self._snapshot.taken > 1:
                    self._refresh()
                    version = current
                pause = max(POLL_SECONDS, 4 * (time.monotonic() - began))  # a long queue must not take a whole core
                self._end_abandoned()
            except Exception as error:  # whatever it is, waiting requests need this thread: keep the last figures
                logs.failure("store_unreadable", error)
                self._stop.wait(1)

    def _refresh(self) -> None:
        taken = time.time()
        jobs = {job.id: job for job in self._store.unfinished()}
        snapshot = Snapshot(jobs, self._store.queue_stats(), self._store.worker() or {}, taken)
        with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()

    def _end_abandoned(self) -> None:
        now = time.monotonic()
        with self._changed:
            due = [job_id for job_id, moment in self._leaving.items() if moment <= now]
            for job_id in due:
                del self._leaving[job_id]
        for job_id in due:
            if self._store.cancel(job_id, unless_detached=True):
                logs.event("job_abandoned", job=job_id)
