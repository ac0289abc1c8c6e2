"""Accepted work outlives whatever passes: restarts, a locked store, a full disk, a lack of memory."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.worker_shop import FakeEngine, Shop, shop, wav, working
from transcribe.audio import decoder
from transcribe.jobs.database import SCHEMA_VERSION
from transcribe.jobs.store import Store, StoreError
from transcribe.worker import loop, resume


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Shop]:
    found = shop(tmp_path, batch__max_chunks=4)
    yield found
    found.store.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts after a setback come soon."""
    monkeypatch.setattr(loop, "LONGEST_DELAY", 0.1)


def interrupt(place: Shop, job: str, monkeypatch: pytest.MonkeyPatch, **changes: object) -> FakeEngine:
    """Works on the job until it has some text, then stops the worker at once."""
    monkeypatch.setattr(loop, "DRAIN_SECONDS", 0.0)
    engine = FakeEngine(delay=0.03)
    with working(place, engine) as running:
        place.until(lambda: len(place.store.segments(job)) > 2)
        running.worker.stop()
        place.until(lambda: place.job(job).status == "queued")
    return engine


def test_a_restart_goes_on_after_the_last_committed_segment(place: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = wav(400.0)
    whole = place.submit(recording)
    with working(place, FakeEngine()):
        place.ended(whole)
    job = place.submit(recording)
    first = interrupt(place, job, monkeypatch)
    before = place.store.segments(job)
    assert place.job(job).progress > 0
    second = FakeEngine()
    with working(place, second):
        done = place.ended(job)
    after = place.store.segments(job)
    assert after[: len(before)] == before
    texts = [[segment.text.split("/")[1] for segment in place.store.segments(name)] for name in (job, whole)]
    assert texts[0] == texts[1]
    assert done.coverage == place.job(whole).coverage
    assert done.attempts == 2
    twice = len(first.seen) + len(second.seen) - len(after)
    assert 0 <= twice <= first.places


def test_a_worker_that_dies_leaves_its_text_to_the_next(tmp_path: Path) -> None:
    first = shop(tmp_path, batch__max_chunks=4)
    job = first.submit(wav(400.0))
    engine = FakeEngine(delay=0.03)
    with working(first, engine) as running:
        first.until(lambda: len(first.store.segments(job)) > 2)
        engine.trouble = RuntimeError("CUDA error")
        first.until(lambda: running.failure is not None)
    kept = len(first.store.segments(job))
    first.store.close()
    second = shop(tmp_path, batch__max_chunks=4)
    assert second.store.requeue_running() == ([job], [])
    assert len(second.store.segments(job)) == kept
    rest = FakeEngine()
    with working(second, rest):
        assert second.ended(job).status == "done"
    assert min(chunk.key[2] for chunk in rest.seen) == kept  # type: ignore[index]
    second.store.close()


def test_another_way_of_cutting_begins_again(place: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = place.submit(wav(400.0))
    interrupt(place, job, monkeypatch)
    monkeypatch.setattr(resume, "SAME_CUT_SECONDS", -1.0)
    engine = FakeEngine()
    with working(place, engine):
        assert place.ended(job).status == "done"
    assert min(chunk.key[2] for chunk in engine.seen) == 0  # type: ignore[index]
    ids = [segment.id for segment in place.store.segments(job)]
    assert ids == list(range(len(ids)))


def test_orderly_restarts_make_no_suspect(place: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = place.submit(wav(600.0))
    for _ in range(3):
        interrupt(place, job, monkeypatch)
    engine = FakeEngine(delay=0.02)
    with working(place, engine):
        place.until(lambda: place.job(job).status == "running")
        short = place.ended(place.submit(wav(3.0)))
        assert short.status == "done"
        assert place.ended(job).status == "done"
    assert place.job(job).tries == 1


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device"), RuntimeError("whatever")])
def test_an_error_that_passes_costs_an_attempt_and_not_the_job(
    place: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    original = decoder.Decoder.__enter__
    failures = iter([error, error])

    def enter(self: decoder.Decoder) -> decoder.Decoder:
        for found in failures:
            raise found
        return original(self)

    monkeypatch.setattr(decoder.Decoder, "__enter__", enter)
    with working(place, FakeEngine()):
        job = place.ended(place.submit(wav(10.0)))
    assert (job.status, job.setbacks, job.tries) == ("done", 2, 1)
    assert (place.config.temp / job.id).exists()


def test_an_error_that_does_not_pass_fails_the_job_with_its_reason(
    place: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LONGEST_DELAY", 0.0)

    def enter(_self: decoder.Decoder) -> decoder.Decoder:
        raise RuntimeError("a defect")

    monkeypatch.setattr(decoder.Decoder, "__enter__", enter)
    with working(place, FakeEngine()):
        job = place.ended(place.submit(wav(10.0)))
    assert job.error is not None
    assert (job.error.status, job.error.code) == (500, "setbacks")
    assert "RuntimeError" in job.error.message


def test_no_memory_in_the_engine_counts_no_attempt(tmp_path: Path) -> None:
    for _ in range(4):
        place = shop(tmp_path, batch__max_chunks=4)
        place.store.requeue_running()
        job = place.store.unfinished()[0].id if place.store.unfinished() else place.submit(wav(10.0))
        with contextlib.closing(sqlite3.connect(place.config.database, isolation_level=None)) as clock:
            clock.execute("UPDATE jobs SET not_before = 0")
        with working(place, FakeEngine(trouble=RuntimeError("DefaultCPUAllocator: can't allocate memory"))) as running:
            place.until(lambda running=running: running.failure is not None)
        assert place.job(job).status == "queued"
        assert place.job(job).tries == 0
        place.store.close()


def test_a_locked_store_is_waited_for(tmp_path: Path) -> None:
    place = shop(tmp_path)
    jobs = [place.submit(wav(30.0)) for _ in range(3)]
    hasty = Shop(place.config, Store(place.config.database, busy_seconds=0.1))  # what the worker uses
    with (
        working(hasty, FakeEngine(delay=0.05)) as running,
        contextlib.closing(sqlite3.connect(place.config.database, timeout=20)) as other,
    ):
        place.until(lambda: place.store.segments(jobs[0]))
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(1.5)
        other.rollback()
        assert running.failure is None
        assert [place.ended(job).status for job in jobs] == ["done"] * 3
    assert max(place.job(job).tries for job in jobs) == 1
    hasty.store.close()
    place.store.close()


def test_a_row_that_cannot_be_read_is_a_failed_job_and_stops_nobody(place: Shop) -> None:
    bad, good = place.submit(wav(3.0)), place.submit(wav(3.0))
    with contextlib.closing(sqlite3.connect(place.config.database, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET options = '{' WHERE id = ?", (bad,))
    assert [job.id for job in place.store.unfinished()] == [good]
    with working(place, FakeEngine()):
        assert place.ended(good).status == "done"
        place.until(lambda: place.store.counts().get("failed") == 1)
    error = place.job(bad).error
    assert error is not None
    assert error.code == "job_unreadable"


OLD_SCHEMA_1 = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, key_id TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'queued',
  options TEXT NOT NULL, suffix TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL,
  attempts INTEGER NOT NULL DEFAULT 0, releases INTEGER NOT NULL DEFAULT 0, duration REAL, estimate REAL NOT NULL,
  progress REAL NOT NULL DEFAULT 0, error TEXT, language TEXT, coverage TEXT, request TEXT NOT NULL,
  fingerprint TEXT NOT NULL, detached INTEGER NOT NULL, callback TEXT NOT NULL) STRICT;
CREATE TABLE segments (job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, id INTEGER NOT NULL,
  body TEXT NOT NULL, PRIMARY KEY (job, id)) STRICT, WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
INSERT INTO jobs (id, key_id, options, suffix, created, estimate, request, fingerprint, detached, callback)
  VALUES ('a', '', '{"language": "sv"}', '', 1, 3, '{}', '', 1, '');
PRAGMA user_version = 1;
"""


def test_an_older_store_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD_SCHEMA_1)
    store = Store(path)
    job = store.claim()
    assert job is not None
    assert (job.id, job.tries, job.setbacks) == ("a", 1, 0)
    store.close()
    Store(path).close()


def test_a_store_whose_tables_are_not_its_versions_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE jobs RENAME COLUMN suffix TO ending")
    with pytest.raises(StoreError, match=rf"table jobs is not as version {SCHEMA_VERSION} has it: ending, suffix") as e:
        Store(path)
    assert not e.value.passing


def test_a_locked_store_at_the_start_is_no_reason_to_stay_down(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked") as caught:
            Store(path, busy_seconds=0.1)
    assert caught.value.passing
