"""Accepted work outlives whatever passes: restarts, a locked store, a full disk, a lack of memory."""

import contextlib
import json
import os
import time
from pathlib import Path

import pytest
from support.worker_fixture import FakeEngine, ServiceFixture, running_worker, service_fixture, wav
from transcribe import logs, memory
from transcribe.audio import decoder
from transcribe.jobs.database import SCHEMA_VERSION
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store, StoreError
from transcribe.types import Segment
from transcribe.worker import loop, main, resume

pytestmark = [pytest.mark.slow, pytest.mark.attack]


@pytest.fixture(autouse=True)
def short_retry_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts after a setback come soon."""
    monkeypatch.setattr(loop, "LONGEST_DELAY", 0.1)


def interrupt(service: ServiceFixture, job: str, monkeypatch: pytest.MonkeyPatch, **changes: object) -> FakeEngine:
    """Works on the job until it has some text, then stops the worker at once."""
    monkeypatch.setattr(loop, "DRAIN_SECONDS", 0.0)
    engine = FakeEngine(most=5)  # a store that is slow has not all of the text then
    with running_worker(service, engine) as running:
        service.until(lambda: len(service.store.segments(job)) > 2)
        running.worker.stop()
        service.until(lambda: service.job(job).status == "queued")
    return engine


def test_a_restart_goes_on_after_the_last_committed_segment(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = wav(400.0)
    whole = service.submit(recording)
    with running_worker(service, FakeEngine()):
        service.wait(whole)
    job = service.submit(recording)
    first = interrupt(service, job, monkeypatch)
    before = service.store.segments(job)
    assert service.job(job).progress > 0
    second = FakeEngine()
    with running_worker(service, second):
        done = service.wait(job)
    after = service.store.segments(job)
    assert after[: len(before)] == before
    texts = [[segment.text.split("/")[1] for segment in service.store.segments(name)] for name in (job, whole)]
    assert texts[0] == texts[1]
    assert done.coverage == service.job(whole).coverage
    assert done.attempts == 2
    twice = len(first.received) + len(second.received) - len(after)
    assert 0 <= twice <= first.capacity


def test_a_worker_that_dies_leaves_its_text_to_the_next(tmp_path: Path) -> None:
    first = service_fixture(tmp_path, batch__max_chunks=4)
    job = first.submit(wav(400.0))
    engine = FakeEngine(most=5)  # a store that is slow has not all of the text then
    with running_worker(first, engine) as running:
        first.until(lambda: len(first.store.segments(job)) > 2)
        engine.error = RuntimeError("CUDA error")
        first.until(lambda: running.failure is not None)
    kept = len(first.store.segments(job))
    first.store.close()
    second = service_fixture(tmp_path, batch__max_chunks=4)
    assert second.store.requeue_running() == ([job], [])
    assert len(second.store.segments(job)) == kept
    rest = FakeEngine()
    with running_worker(second, rest):
        assert second.wait(job).status == "done"
    assert min(chunk.key[2] for chunk in rest.received) == kept  # type: ignore[index]
    second.store.close()


def test_a_store_that_is_locked_just_after_a_claim_costs_an_attempt(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = service.submit(wav(400.0))
    interrupt(service, job, monkeypatch)
    original = service.store.segments
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
    failures = iter([locked])

    def segments(job_id: str, after: int = -1) -> list[Segment]:
        for error in failures:
            raise error
        return original(job_id, after)

    monkeypatch.setattr(service.store, "segments", segments)
    with running_worker(service, FakeEngine()) as running:
        done = service.wait(job, seconds=20.0)
        assert running.failure is None
    assert (done.status, done.setbacks) == ("done", 1)


def test_another_way_of_cutting_begins_again(service: ServiceFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    job = service.submit(wav(400.0))
    interrupt(service, job, monkeypatch)
    monkeypatch.setattr(resume, "SAME_CUT_SECONDS", -1.0)
    engine = FakeEngine()
    with running_worker(service, engine):
        assert service.wait(job).status == "done"
    assert min(chunk.key[2] for chunk in engine.received) == 0  # type: ignore[index]
    ids = [segment.id for segment in service.store.segments(job)]
    assert ids == list(range(len(ids)))


@pytest.mark.parametrize(
    "changes",
    [{"next_id": 0}, {"next_id": "3"}, {"chunks": None}, {"coverage": {"of_later_versions": 1}}, {"strands": [{}]}],
    ids=str,
)
def test_a_job_begins_again_where_nobody_can_go_on_from_what_is_stored(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    job = service.submit(wav(400.0))
    interrupt(service, job, monkeypatch)
    with contextlib.closing(sqlite3.connect(service.config.database, isolation_level=None)) as store:
        ((kept,),) = store.execute("SELECT resume FROM jobs WHERE id = ?", (job,))
        store.execute("UPDATE jobs SET resume = ? WHERE id = ?", (json.dumps(json.loads(kept) | changes), job))
    with running_worker(service, FakeEngine()) as running:
        done = service.wait(job)
        assert running.failure is None
    assert (done.status, done.setbacks) == ("done", 0)
    ids = [segment.id for segment in service.store.segments(job)]
    assert ids == list(range(len(ids)))


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_lock_file_that_is_none_is_named_in_one_line(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    place = service.config.temp / "worker.lock"
    if kind == "link":
        place.symlink_to(service.config.database)
    else:
        os.mkfifo(place)
    monkeypatch.setattr(logs, "configure", lambda: None)
    monkeypatch.setattr(memory, "share_arenas", lambda: None)
    assert main.work(service.config) == main.EXIT_BROKEN
    [line] = capsys.readouterr().err.splitlines()
    assert str(place) in line


def test_orderly_restarts_make_no_suspect(service: ServiceFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    job = service.submit(wav(600.0))
    for _ in range(3):
        interrupt(service, job, monkeypatch)
    engine = FakeEngine(delay=0.02)
    with running_worker(service, engine):
        service.until(lambda: service.job(job).status == "running")
        short = service.wait(service.submit(wav(3.0)))
        assert short.status == "done"
        assert service.wait(job).status == "done"
    assert service.job(job).tries == 1


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device"), RuntimeError("whatever")])
def test_an_error_that_passes_costs_an_attempt_and_not_the_job(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    original = decoder.Decoder.__enter__
    failures = iter([error, error])

    def enter(self: decoder.Decoder) -> decoder.Decoder:
        for found in failures:
            raise found
        return original(self)

    monkeypatch.setattr(decoder.Decoder, "__enter__", enter)
    with running_worker(service, FakeEngine()):
        job = service.wait(service.submit(wav(10.0)))
    assert (job.status, job.setbacks, job.tries) == ("done", 2, 1)
    assert (service.config.temp / job.id).exists()


def test_an_error_that_does_not_pass_fails_the_job_with_its_reason(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LONGEST_DELAY", 0.0)

    def enter(_self: decoder.Decoder) -> decoder.Decoder:
        raise RuntimeError("a defect")

    monkeypatch.setattr(decoder.Decoder, "__enter__", enter)
    with running_worker(service, FakeEngine()):
        job = service.wait(service.submit(wav(10.0)))
    assert job.error is not None
    assert (job.error.status, job.error.code) == (500, "setbacks")
    assert "RuntimeError" in job.error.message


def test_no_memory_in_the_engine_counts_no_attempt(tmp_path: Path) -> None:
    for _ in range(4):
        service = service_fixture(tmp_path, batch__max_chunks=4)
        service.store.requeue_running()
        job = service.store.unfinished()[0].id if service.store.unfinished() else service.submit(wav(10.0))
        with contextlib.closing(sqlite3.connect(service.config.database, isolation_level=None)) as clock:
            clock.execute("UPDATE jobs SET not_before = 0")
        with running_worker(
            service, FakeEngine(error=RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        ) as running:
            service.until(lambda running=running: running.failure is not None)
        assert service.job(job).status == "queued"
        assert service.job(job).tries == 0
        service.store.close()


def test_a_locked_store_is_waited_for(tmp_path: Path) -> None:
    service = service_fixture(tmp_path)
    jobs = [service.submit(wav(30.0)) for _ in range(3)]
    worker_view = ServiceFixture(
        service.config, Store(service.config.database, busy_seconds=0.1)
    )  # what the worker uses
    with (
        running_worker(worker_view, FakeEngine(delay=0.05)) as running,
        contextlib.closing(sqlite3.connect(service.config.database, timeout=20)) as other,
    ):
        service.until(lambda: service.store.segments(jobs[0]))
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(1.5)
        other.rollback()
        assert running.failure is None
        assert [service.wait(job).status for job in jobs] == ["done"] * 3
    assert max(service.job(job).tries for job in jobs) == 1
    worker_view.store.close()
    service.store.close()


def test_a_row_that_cannot_be_read_is_a_failed_job_and_stops_nobody(service: ServiceFixture) -> None:
    bad, good = service.submit(wav(3.0)), service.submit(wav(3.0))
    with contextlib.closing(sqlite3.connect(service.config.database, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET options = '{' WHERE id = ?", (bad,))
    assert [job.id for job in service.store.unfinished()] == [good]
    with running_worker(service, FakeEngine()):
        assert service.wait(good).status == "done"
        service.until(lambda: service.store.counts().get("failed") == 1)
    error = service.job(bad).error
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
    assert not e.value.transient


def test_a_locked_store_at_the_start_is_no_reason_to_stay_down(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked") as caught:
            Store(path, busy_seconds=0.1)
    assert caught.value.transient
