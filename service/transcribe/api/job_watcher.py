"""Lets requests wait for jobs without each polling the store: one thread looks, when the worker wakes it and from time
to time, and wakes those whose jobs changed.

It also keeps the figures that /health shows, so that /health never waits for the disk.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from transcribe import logs
from transcribe.jobs.models import UNFINISHED, Job, Mark, QueueStats
from transcribe.jobs.store import CLIENTS, Store

POLL_SECONDS = 0.02  # what a lost wake-up costs
SNAPSHOT_SECONDS = 0.1  # between two snapshots, each of which counts the unfinished jobs
STALE_SECONDS = 20.0  # a worker that has not reported for this long counts as absent
GRACE_SECONDS = 15.0  # how long a request's job outlives its client, which may be about to retry


@dataclass(frozen=True)
class Snapshot:
    """The latest state of the queue and the worker's facts; `taken` by the monotonic clock, which nobody sets."""

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


@dataclass
class Followed:
    """A job that clients wait for: how many they are, its mark as it was last seen (None once it is gone), and how
    often that was a new one."""

    changed: threading.Condition
    mark: Mark | None
    clients: int = 0
    looked: bool = False  # at the store, since it is followed
    changes: int = 0


class Follower:
    """A client that waits for a job."""

    def __init__(self, followed: Followed, *, seen: bool) -> None:
        self._followed = followed
        self._seen = followed.changes if seen else -1

    def wait(self, seconds: float) -> bool:
        """Whether the job changed since the last time; waits so long for that. Read the job afterwards."""
        followed = self._followed
        with followed.changed:
            changed = followed.changed.wait_for(lambda: followed.changes != self._seen, seconds)
            self._seen = followed.changes
            return changed


class JobWatcher:
    """Wakes waiting requests when their job changed, and cancels the jobs of clients that disconnected."""

    def __init__(self, store: Store, *, grace: float = GRACE_SECONDS) -> None:
        self._store = store
        self._grace = grace
        self._guard = threading.Lock()
        self._snapshot = Snapshot()
        self._followed: dict[str, Followed] = {}
        self._leaving: dict[str, float] = {}  # job → when to end it
        self._stop = threading.Event()
        self._wakeups = store.listener(CLIENTS)
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Reads the first snapshot and starts the thread. Jobs whose clients waited on an earlier process get the
        same grace as those whose client just left."""
        self._refresh()
        end = time.monotonic() + self._grace
        self._leaving = {job.id: end for job in self._store.unfinished() if not job.detached}
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._wakeups.wake()
        self._thread.join()
        self._wakeups.close()

    @property
    def snapshot(self) -> Snapshot:
        """The latest figures."""
        return self._snapshot

    @property
    def alive(self) -> bool:
        """The thread is doing its work."""
        return self._thread.is_alive() and time.monotonic() - self._snapshot.taken < STALE_SECONDS

    def follow(self, job: Job) -> Follower:
        """Registers a client that waits for this job, which it has read just now; it must `leave`."""
        with self._guard:
            found = self._followed.setdefault(job.id, Followed(threading.Condition(self._guard), job.mark))
            found.clients += 1
            self._leaving.pop(job.id, None)
            return Follower(found, seen=found.mark == job.mark)

    def leave(self, job_id: str) -> None:
        """Removes the client. When the last one has left and none returns, the job is cancelled unless detached."""
        with self._guard:
            followed = self._followed[job_id]
            followed.clients -= 1
            if not followed.clients:
                del self._followed[job_id]
                if followed.mark is not None and followed.mark.status in UNFINISHED:
                    self._leaving[job_id] = time.monotonic() + self._grace

    def _run(self) -> None:
        looked = shown = None  # versions of the store
        pause = SNAPSHOT_SECONDS
        while not self._stop.is_set():
            try:
                current = self._store.version()
                self._look(anew=current != looked)
                looked, age = current, time.monotonic() - self._snapshot.taken
                if age > 1 or (shown != current and age > pause):
                    pause = max(SNAPSHOT_SECONDS, 4 * self._refresh())  # a long queue must not take a whole core
                    shown = current
                self._end_abandoned()
            except Exception as error:  # whatever it is, waiting requests need this thread: keep the last figures
                logs.failure("store_unreadable", error)
                self._stop.wait(1)
            self._wakeups.wait(POLL_SECONDS)

    def _look(self, *, anew: bool) -> None:
        """Looks at the jobs that clients wait for, or only at those that nobody has looked at yet, and wakes those
        whose job changed."""
        with self._guard:
            wanted = {job_id: found for job_id, found in self._followed.items() if anew or not found.looked}
        if not wanted:
            return
        marks = self._store.marks(wanted)
        with self._guard:
            for job_id, followed in wanted.items():
                followed.looked = True
                if (mark := marks.get(job_id)) != followed.mark:
                    followed.mark = mark
                    followed.changes += 1
                    followed.changed.notify_all()

    def _refresh(self) -> float:
        """Takes a snapshot; returns the seconds that this took."""
        began = time.monotonic()
        self._snapshot = Snapshot(self._store.queue_stats(), self._store.worker() or {}, began)
        return time.monotonic() - began

    def _end_abandoned(self) -> None:
        now = time.monotonic()
        with self._guard:
            due = [job_id for job_id, moment in self._leaving.items() if moment <= now]
        for job_id in due:
            if job_id not in self._leaving:  # a client is back
                continue
            if self._store.cancel(job_id, unless_detached=True):
                logs.event("job_abandoned", job=job_id)
            with self._guard:  # not before: the store may have failed
                self._leaving.pop(job_id, None)
