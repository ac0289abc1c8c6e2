"""Deletes uploads of finished jobs, jobs older than the retention time, and incomplete uploads."""

import threading
import time
from pathlib import Path

from transcribe import logs
from transcribe.api.spool import PART
from transcribe.config import ServiceConfig
from transcribe.jobs import uploads
from transcribe.jobs.store import Store

ROUND_SECONDS = 5.0
# An upload without a job may be about to get one: it has its name before the disk has all of it, which takes as long as
# the disk is slow.
ORPHAN_SECONDS = 600.0
SCRUB_SECONDS = 60.0  # after which replaced text is out of the store's log as well


class RetentionThread:
    """The thread that deletes them."""

    def __init__(self, config: ServiceConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._scrubbed = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Removes what an earlier process left half done, and starts the thread."""
        for path in self._config.temp.glob(f"*{PART}"):
            path.unlink(missing_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def once(self, now: float) -> None:
        """One round, at the Unix time `now`."""
        before = now - self._config.retention.results_hours * 3600
        for job_id in self._store.expire(before, fleet=self._config.fleet.on):
            logs.event("job_expired", job=job_id)
        if not 0 <= now - self._scrubbed < SCRUB_SECONDS:
            self._store.scrub()
            self._scrubbed = now
        if unneeded := [path for path in self._config.temp.iterdir() if self._is_unneeded(path, now)]:
            self._store.sync()  # a job whose end a power cut takes back needs its recording again
        for path in unneeded:
            path.unlink(missing_ok=True)

    def _is_unneeded(self, path: Path, now: float) -> bool:
        if (owner := uploads.owner(path)) is None:
            return False
        job = self._store.get(owner)
        return job.over if job else now - path.lstat().st_ctime > ORPHAN_SECONDS

    def _run(self) -> None:
        while not self._stop.wait(ROUND_SECONDS):
            try:
                self.once(time.time())
            except Exception as error:
                logs.failure("retention_failed", error)
