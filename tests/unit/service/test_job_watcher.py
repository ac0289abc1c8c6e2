"""The thread that looks at the store for all requests: whatever happens to the store or to the clock, it goes on."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import waiting
from transcribe.api.job_watcher import JobWatcher
from transcribe.jobs.models import NewJob
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions

NEW = NewJob("", DecodeOptions(language=None), estimate=1.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "jobs.sqlite3")
    yield found
    found.close()


@pytest.fixture
def watcher(store: Store) -> Iterator[JobWatcher]:
    found = JobWatcher(store, grace=0.0)
    found.start()
    yield found
    found.stop()


def test_figures_are_new_also_after_the_clock_was_set_back(
    store: Store, watcher: JobWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() - 3600)
    store.create(NEW)
    waiting.until(lambda: watcher.snapshot.queue.queued, 10)
    assert watcher.alive


def locked() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def test_an_abandoned_job_is_ended_as_soon_as_the_store_can_be_written(
    store: Store, watcher: JobWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel, failures = store.cancel, iter([locked()])

    def failing(job_id: str, *, unless_detached: bool = False) -> bool:
        for error in failures:
            raise error
        return cancel(job_id, unless_detached=unless_detached)

    monkeypatch.setattr(store, "cancel", failing)
    jobs = [store.create(NewJob("", NEW.options, estimate=1.0)) for _ in range(3)]
    for job in jobs:
        watcher.follow(job)
    for job in jobs:
        watcher.leave(job.id)
    waiting.until(lambda: store.counts() == {"cancelled": 3}, 10)


def test_a_job_whose_client_returns_before_its_turn_to_be_ended_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, cancel = JobWatcher(store, grace=0.3), store.cancel
    watcher.start()
    jobs = [store.create(NewJob("", NEW.options, estimate=1.0)) for _ in range(2)]

    def slow(job_id: str, *, unless_detached: bool = False) -> bool:
        for job in jobs:  # a client returns while the store takes its time for the other's job
            if job.id != job_id:
                watcher.follow(job)
        return cancel(job_id, unless_detached=unless_detached)

    monkeypatch.setattr(store, "cancel", slow)
    for job in jobs:
        watcher.follow(job)
    for job in jobs:
        watcher.leave(job.id)
    waiting.until(lambda: "cancelled" in store.counts(), 10)
    watcher.stop()
    assert store.counts() == {"cancelled": 1, "queued": 1}
