"""What the job store costs does not grow with the jobs that it keeps: counted in SQLite's instructions, not in time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.stores import Clock, claimed, new
from transcribe.jobs.models import Bounds
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store

GRAIN = 10  # instructions
BOUNDS = Bounds(jobs=100_000, key_jobs=100_000, audio_seconds=1e9)
COPIES = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
INSERT INTO jobs (id, fingerprint, created, finished, status, key_id, options, suffix, estimate, request, detached,
    callback)
SELECT 'copy' || n, 'copy' || n, created, created, 'done', key_id, options, suffix, estimate, request, detached, ''
FROM jobs, number
"""
WORK: dict[str, Callable[[Store, Clock], object]] = {
    "a job that may be a repeat": lambda store, clock: store.create(new(), bounds=BOUNDS, reuse_since=clock.now - 600),
    "a claim": lambda store, _: store.claim(),
    "callbacks": lambda store, _: store.pending_webhooks(),
    "retention": lambda store, _: store.expire(0.0),
    "figures of the queue": lambda store, _: store.queue_stats(),
    "unfinished": lambda store, _: store.unfinished(),
    "a page of jobs": lambda store, _: store.jobs("key", limit=5),
}


@pytest.mark.parametrize("work", WORK)
def test_it_does_not_grow_with_the_jobs_of_the_last_minutes(
    work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (_instructions(tmp_path / f"{count}.sqlite3", count, work, monkeypatch) for count in (20, 2_000))
    assert many < 2 * few + 100


def _instructions(path: Path, count: int, work: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """What the work takes where so many jobs are done."""
    steps = [0]

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = plain(*arguments, **options)
        connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + GRAIN), GRAIN)
        return connection

    plain, clock = sqlite3.connect, Clock()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        store = Store(path, clock=clock)
        first = store.create(new())
        with plain(path) as connection:
            connection.execute(COPIES, (count,))
        job, attempt = claimed(store)
        assert job == first.id
        store.finish(job, attempt, language="sv", coverage={})
        steps[0] = 0
        WORK[work](store, clock)
        store.close()
    return steps[0]
