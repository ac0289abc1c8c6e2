"""Writers that come at the same time share a commit, and each still gets an answer of its own."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support import waiting
from support.worker_fixture import FakeEngine, running_worker, service_fixture, wav
from transcribe.jobs import commits as commits_module
from transcribe.jobs import database
from transcribe.jobs.commits import GroupCommit
from transcribe.jobs.models import Bounds, NewJob, Outcome, QueueFullError
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions, Segment
from transcribe.worker import keeper, loop, preprocess


def new(estimate: float = 1.0, *, detached: bool = False) -> NewJob:
    return NewJob(key_id="", options=DecodeOptions(language=None), estimate=estimate, detached=detached)


def commits(path: Path) -> int:
    """How many commits are in the store's log: frames that say how large the file is then
    (https://sqlite.org/fileformat.html#the_write_ahead_log)."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    size = int.from_bytes(log[8:12], "big")
    frames = [log[start : start + 24] for start in range(32, len(log), 24 + size)]
    return sum(frame[8:16] == log[16:24] and frame[4:8] != bytes(4) for frame in frames)


@contextmanager
def held(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    """The store, locked by another program."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(how)
        yield other


def at_once(path: Path, calls: list[Callable[[], Any]]) -> list["Future[Any]"]:
    """What becomes of calls that all begin while another program writes."""
    with ThreadPoolExecutor(len(calls)) as pool:
        with held(path, "BEGIN IMMEDIATE") as other:
            begun = [threading.Event() for _ in calls]
            found = [pool.submit(_told, event, call) for event, call in zip(begun, calls, strict=True)]
            assert all(event.wait(30) for event in begun)
            other.execute("ROLLBACK")
        return found


def _told(event: threading.Event, call: Callable[[], Any]) -> Any:
    event.set()
    return call()


def test_writers_that_wait_together_share_commits(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    before = commits(tmp_path / "jobs.sqlite3")
    jobs = [each.result() for each in at_once(tmp_path / "jobs.sqlite3", [lambda: store.create(new())] * 24)]
    assert len({job.id for job in jobs}) == 24
    assert all(store.get(job.id) == job for job in jobs)
    assert commits(tmp_path / "jobs.sqlite3") - before <= 12  # mostly 2: those that came late have one more


def test_what_fails_in_a_shared_commit_fails_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    bounds = Bounds(jobs=5, audio_seconds=1e6, key_jobs=100)
    found = at_once(tmp_path / "jobs.sqlite3", [lambda: store.create(new(), bounds=bounds)] * 12)
    refused = [each for each in found if isinstance(each.exception(), QueueFullError)]
    assert len(refused) == 7
    assert store.counts() == {"queued": 5}


def test_a_commit_that_fails_is_nobodys_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (commits_module, database):  # an older SQLite, whose commits wait for those who read
        monkeypatch.setattr(module, "WAL", False)
    store = Store(tmp_path / "jobs.sqlite3", busy_seconds=2.0)
    with held(tmp_path / "jobs.sqlite3", "BEGIN") as reader:
        reader.execute("SELECT count(*) FROM jobs").fetchone()  # as long as somebody reads, nothing can be committed
        found = at_once(tmp_path / "jobs.sqlite3", [lambda: store.create(new())] * 6)
        assert all(isinstance(each.exception(), sqlite3.OperationalError) for each in found)
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.sqlite3", "jobs.sqlite3-journal"}
    assert store.counts() == {}
    assert store.create(new()).status == "queued"


def test_a_writer_gives_up_when_another_program_writes_for_too_long(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3", busy_seconds=0.2)
    with held(tmp_path / "jobs.sqlite3", "BEGIN IMMEDIATE"), ThreadPoolExecutor(4) as pool:
        found = [pool.submit(store.create, new()) for _ in range(4)]
        errors = [each.exception() for each in found]
    assert [getattr(error, "sqlite_errorcode", None) for error in errors] == [sqlite3.SQLITE_BUSY] * 4
    assert store.create(new()).status == "queued"


def test_what_must_outlive_a_power_cut_waits_for_the_disk_and_nothing_else_does(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    connection, said = store._database._commits._connection, list[str]()
    assert connection is not None
    connection.set_trace_callback(said.append)
    done: list[Callable[[], object]] = [
        lambda: store.create(new()),
        store.claim,
        lambda: store.create(new(detached=True)),
        lambda: store.cancel("x"),
        lambda: store.set_worker({}),
        lambda: store.webhook_done("x"),
        lambda: store.delete("x"),
    ]
    for call in done:
        call()
    waits = [words.removeprefix("PRAGMA synchronous = ") for words in said if "synchronous" in words]
    assert waits == ["NORMAL", "NORMAL", "FULL", "FULL", "NORMAL", "FULL", "FULL"]


def test_a_change_that_must_be_on_the_disk_is_in_no_commit_that_does_not_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store, said = Store(path), list[str]()
    connection = store._database._commits._connection
    assert connection is not None
    connection.set_trace_callback(said.append)
    calls: list[Callable[[], Any]] = [
        partial(store.create, new(float(number), detached=number % 3 == 2)) for number in range(24)
    ]
    assert {each.result().detached for each in at_once(path, calls)} == {False, True}
    mode = ""
    for words in said:
        mode = words if "synchronous" in words else mode
        assert mode.endswith("FULL") or "INSERT" not in words or ",1,''" not in words.replace(" ", "")


def test_a_power_cut_takes_the_end_of_the_log_and_no_job_that_was_accepted(tmp_path: Path) -> None:
    path, log = tmp_path / "jobs.sqlite3", tmp_path / "jobs.sqlite3-wal"
    store = Store(path)
    accepted = [store.create(new(detached=True)).id for _ in range(3)]
    on_disk = log.stat().st_size
    for job_id in accepted:
        job = store.claim()
        assert job is not None
        store.finish(job.id, 1, language="sv", coverage={})
        assert job.id == job_id
    found = set()
    for size in (*range(on_disk, log.stat().st_size, 1000), log.stat().st_size):
        after = tmp_path / str(size)
        after.mkdir()
        (after / path.name).write_bytes(path.read_bytes())
        (after / log.name).write_bytes(log.read_bytes()[:size])
        left = Store(after / path.name)
        assert left._database.rows("PRAGMA integrity_check")[0][0] == "ok"
        found.add(tuple((left.get(job_id) or pytest.fail("lost")).status for job_id in accepted))
        left.close()
    assert {("queued",) * 3, ("running", "queued", "queued"), ("done",) * 3} <= found


@pytest.mark.parametrize("detached", [True, False])
def test_an_attempt_at_a_job_that_nobody_waits_for_is_on_the_disk_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detached: bool
) -> None:
    """One that takes the machine down with it is not tried for ever."""
    store, synced = Store(tmp_path / "jobs.sqlite3"), list[int]()
    store.create(new(detached=detached))
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert store.claim()
    assert len(synced) == detached


def test_a_log_that_cannot_be_synced_is_said_as_any_broken_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store = Store(tmp_path / "jobs.sqlite3")
    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(sqlite3.OperationalError, match="the log cannot be synced: Input/output error") as raised:
        store.sync()
    assert database.is_transient(raised.value)


class Broken(sqlite3.Connection):
    """A connection that cannot end its transaction."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql in ("COMMIT", "ROLLBACK"):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *arguments)


def test_a_connection_that_cannot_undo_leaves_the_store_to_the_next(tmp_path: Path) -> None:
    kinds, kept = iter([Broken, sqlite3.Connection]), []

    def connect() -> sqlite3.Connection:
        made = sqlite3.connect(tmp_path / "file", isolation_level=None, check_same_thread=False, factory=next(kinds))
        kept.append(made)
        return made

    group = GroupCommit(connect, 0.2)
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        group.write(lambda connection: connection.execute("CREATE TABLE lost (id)"))
    group.write(lambda connection: connection.execute("CREATE TABLE kept (id)"))
    assert kept[1].execute("SELECT name FROM sqlite_schema").fetchall() == [("kept",)]


def test_the_outcomes_of_several_jobs_are_kept_together_and_judged_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    for _ in range(3):
        store.create(new())
    jobs = [store.claim() for _ in range(3)]
    ids = [job.id for job in jobs if job]
    assert store.cancel(ids[1])
    segment = Segment(0, 0, 0.0, 1.0, " hej", (), 0.0, 0.0, 1.0, 0.0)
    before = commits(tmp_path / "jobs.sqlite3")
    assert store.save([Outcome(job_id, 1, [segment], 1.0) for job_id in ids]) == [True, False, True]
    assert commits(tmp_path / "jobs.sqlite3") - before == 1
    assert [len(store.segments(job_id)) for job_id in ids] == [1, 0, 1]


class Deceitful(sqlite3.Connection):
    """A connection that says once of each kind of change, by words in its statement, that its commit failed, although
    the disk has it."""

    lies: ClassVar[list[str]] = []

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *arguments)
        self.statements = [sql] if sql.startswith("BEGIN") else [*getattr(self, "statements", []), sql]
        told = [words for words in self.lies if any(words in statement for statement in self.statements)]
        if sql == "COMMIT" and told:
            self.lies.remove(told[0])
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return cursor


@pytest.mark.parametrize("ending", ["done", "failed"])
def test_a_commit_that_says_it_failed_costs_no_job_and_no_count(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies = ["status = 'running', started", "SET progress = :progress", f"SET status = '{ending}'"]
    for module in (keeper, loop):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(preprocess, "CLAIM_SECONDS", 0.01)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Deceitful))
    service = service_fixture(tmp_path)
    with running_worker(service, FakeEngine()) as running:
        monkeypatch.setattr(Deceitful, "lies", lies)
        job = service.wait(service.submit(wav(30.0) if ending == "done" else b"no sound"))
        waiting.until(lambda: not len(running.worker._scheduler))
    assert (job.status, job.tries) == (ending, 1)
    assert running.reporter.meter.totals[f"jobs_{ending}_total"] == 1
    assert lies == ([] if ending == "done" else ["SET progress = :progress"])
    if ending == "done":
        assert [segment.id for segment in service.store.segments(job.id)] == [0, 1]
    service.store.close()


def test_the_worker_writes_twice_for_a_short_clip(tmp_path: Path) -> None:
    service = service_fixture(tmp_path)
    engine = FakeEngine.paused()
    with running_worker(service, engine) as running:
        for _ in range(3):
            engine.hold.set()
            before = commits(service.config.database)
            job = service.submit(wav(3.0), estimate=3.3)
            waiting.until(lambda: [active.complete for active in running.worker._scheduler.all()] == [True])
            engine.hold.clear()
            assert service.wait(job).status == "done"
            assert commits(service.config.database) - before == 3  # accepted, claimed, done
            assert service.job(job).duration == pytest.approx(3.0)
            waiting.until(lambda: not len(running.worker._scheduler))
    service.store.close()
