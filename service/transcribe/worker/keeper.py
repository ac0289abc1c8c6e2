"""Writes what comes of jobs to the store, in a thread of its own, so that the model does not wait for the disk.

What gathers while one commit is on its way goes into the next: many short jobs share one. A job's outcomes are kept in
their order.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from transcribe import logs
from transcribe.jobs.database import is_transient
from transcribe.jobs.models import Outcome
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store
from transcribe.worker.scheduler import ActiveJob

MOST_WAITING = 256  # outcomes; then the model waits for the disk after all
MOST_TOGETHER = 64  # in one commit: short ones are not kept waiting by many others
RETRY_SECONDS = 1.0
LAST_SECONDS = 25.0  # that a store which cannot be written is waited for at the end
Answer = TypeVar("Answer")


class Keeper:
    """Runs from `start` to `close`."""

    def __init__(
        self, store: Store, told: Callable[[ActiveJob, Outcome, bool], None], wake: Callable[[], None]
    ) -> None:
        """`told` is called, in the keeper's thread, with each outcome after its commit, and whether it counts: not if
        the job was cancelled or deleted meanwhile. `wake` is called after each commit."""
        self._store = store
        self._told, self._wake = told, wake
        self._changed = threading.Condition()
        self._waiting: list[tuple[ActiveJob, Outcome]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self.give_up: float | None = None  # the moment after which a store that cannot be written is an error
        self.failure: BaseException | None = None  # what ended the thread; the process must end as well

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether no more should be added now."""
        return len(self._waiting) >= MOST_WAITING

    def add(self, active: ActiveJob, outcome: Outcome) -> None:
        """Hands over what came of a job, after all that was handed over before."""
        with self._changed:
            active.unsaved += 1
            self._waiting.append((active, outcome))
            self._changed.notify_all()

    def close(self) -> None:
        """Writes what was handed over, and ends the thread."""
        with self._changed:
            self._closing = True
            self.give_up = self.give_up or time.monotonic() + LAST_SECONDS
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while batch := self._next():
                kept = self._saved([outcome for _, outcome in batch])
                for (active, outcome), counts in zip(batch, kept, strict=True):
                    self._told(active, outcome, counts)
                    with self._changed:
                        active.unsaved -= 1
                self._wake()
        except BaseException as error:
            self.failure = error
            logs.failure("keeper_failed", error)

    def _saved(self, outcomes: list[Outcome]) -> list[bool]:
        return until_stored(lambda: self._store.save(outcomes), self._late, lambda: time.sleep(RETRY_SECONDS))

    def _late(self) -> bool:
        return self.give_up is not None and time.monotonic() > self.give_up

    def _next(self) -> list[tuple[ActiveJob, Outcome]]:
        """What is to be written together; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
            return batch


def until_stored(access: Callable[[], Answer], late: Callable[[], bool], rest: Callable[[], None]) -> Answer:
    """Calls `access` until the store answers, and `rest` between: accepted work outlives a full disk and a locked
    store. Raises sqlite3.Error when the store is broken, or it is `late`."""
    while True:
        try:
            return access()
        except sqlite3.Error as error:
            if not is_transient(error) or late():
                raise
            logs.failure("store_not_writable", error)
        rest()
