"""The job store under threads, processes, kill -9 and late writers."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stores import OPTIONS, Clock, claimed, new
from transcribe.api.job_watcher import JobWatcher
from transcribe.jobs.models import Bounds, JobError, QueueFullError, QueueStats
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store, StoreError
from transcribe.jobs.tickets import Ticket
from transcribe.types import Segment, SpeakerOptions, Word
from transcribe.worker.status import StatusReporter


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "jobs.sqlite3", clock=clock)


def segment(number: int, text: str = " hej") -> Segment:
    words = (Word(" hej", number + 0.1, number + 0.5, 0.9),)
    return Segment(number, 0, float(number), number + 1.0, text, (1, 2), 0.0, -0.2, 1.1, 0.01, words)


def test_a_job_runs_its_course(store: Store, clock: Clock) -> None:
    created = store.create(new("key", suffix=".ogg", estimate=12.5, request={"response_format": "srt"}))
    assert (created.status, created.attempts, created.options) == ("queued", 0, OPTIONS)
    assert store.get(created.id) == created
    clock.now += 1
    running = store.claim()
    assert running is not None
    assert (running.status, running.attempts, running.started) == ("running", 1, clock.now)
    assert store.running() == {created.id: 1}
    assert store.claim() is None
    assert store.set_duration(created.id, 1, 10.0)
    assert store.add_segments(created.id, 1, [segment(0), segment(1)], progress=5.0)
    assert store.add_segments(created.id, 1, [segment(2, " då --> nu")], progress=7.0)
    assert store.segments(created.id, after=0) == [segment(1), segment(2, " då --> nu")]
    assert store.queue_stats() == QueueStats(queued=0, running=1, seconds=3.0)
    clock.now += 1
    assert store.finish(created.id, 1, language="sv", coverage={"speech": 6.0})
    done = store.get(created.id)
    assert done is not None
    assert done.over
    assert (done.status, done.language, done.coverage, done.progress) == ("done", "sv", {"speech": 6.0}, 10.0)
    assert (done.request, done.suffix, done.finished) == ({"response_format": "srt"}, ".ogg", clock.now)


def test_rows_of_an_earlier_version_can_be_read(store: Store, tmp_path: Path) -> None:
    """Its options and segments lack the fields that came since."""
    job = store.create(new())
    options = '{"language":"sv","task":"transcribe","prompt":"Ärendet","hotwords":"","temperature":0.0,"words":true}'
    body = (
        '{"id":0,"seek":0,"start":0.0,"end":1.0,"text":" hej","tokens":[1,2],"temperature":0.0,"avg_logprob":-0.2,'
        '"compression_ratio":1.1,"no_speech_prob":0.01,"words":[{"word":" hej",'
        '"start":0.1,"end":0.5,"probability":0.9}]}'
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as connection, connection:
        connection.execute("UPDATE jobs SET options = ?", (options,))
        connection.execute("INSERT INTO segments (job, id, body) VALUES (?, 0, ?)", (job.id, body))
    found = store.get(job.id)
    assert found is not None
    assert (found.error, found.options) == (None, OPTIONS)
    assert store.segments(job.id) == [segment(0)]


def test_options_and_segments_are_stored_whole(store: Store) -> None:
    speakers = SpeakerOptions(min_speakers=2, max_speakers=4, known_names=("Åsa",))
    options = replace(OPTIONS, speakers=speakers, channels="separate", multilingual=True)
    store.create(new(options=options))
    job_id, attempt = claimed(store)
    said = replace(segment(0), words=(Word(" hej", 0.1, 0.5, 0.9, "Åsa"),), speaker="Åsa", language="sv", channel=1)
    store.add_segments(job_id, attempt, [said], progress=1.0)
    found = store.get(job_id)
    assert found is not None
    assert found.options == options
    assert store.segments(job_id) == [said]


def test_what_a_stale_attempt_sends_is_ignored(store: Store) -> None:
    store.create(new())
    job_id, first = claimed(store)
    assert store.add_segments(job_id, first, [segment(0)], progress=1.0)
    assert store.requeue_running() == ([job_id], [])
    assert store.segments(job_id) == []
    _, second = claimed(store)
    assert not store.add_segments(job_id, first, [segment(0, " gammalt")], progress=9.0)
    assert not store.set_duration(job_id, first, 99.0)
    assert not store.finish(job_id, first, language="en", coverage={})
    assert not store.fail(job_id, first, JobError("late"))
    assert not store.release(job_id, first)
    assert store.add_segments(job_id, second, [segment(0)], progress=1.0)
    assert store.finish(job_id, second, language="sv", coverage={})
    assert store.finish(job_id, second, language="sv", coverage={})  # the same once more: its commit had been denied
    assert store.segments(job_id) == [segment(0)]


def test_a_job_is_tried_three_times(store: Store) -> None:
    store.create(new())
    for attempt in (1, 2):
        job_id, number = claimed(store)
        assert number == attempt
        assert store.requeue_running() == ([job_id], [])
    job_id, _ = claimed(store)
    assert store.requeue_running() == ([], [job_id])
    job = store.get(job_id)
    assert job is not None
    assert job.error == JobError(
        "The transcription process stopped 3 times while working on this recording.", code="worker_died"
    )
    assert store.claim() is None


def test_a_released_job_has_lost_no_attempt(store: Store) -> None:
    store.create(new())
    for _ in range(5):
        assert store.release(*claimed(store))
    job_id, attempt = claimed(store)
    assert attempt == 6
    assert store.requeue_running() == ([job_id], [])


def test_failing_says_why_and_keeps_no_text(store: Store) -> None:
    store.create(new())
    job_id, attempt = claimed(store)
    store.add_segments(job_id, attempt, [segment(0)], progress=1.0)
    error = JobError("no sound", type="invalid_request_error", code="no_audio", param="file", status=400)
    assert store.fail(job_id, attempt, error)
    job = store.get(job_id)
    assert job is not None
    assert (job.status, job.error, store.segments(job_id)) == ("failed", error, [])


def test_cancel_ends_a_job_once(store: Store) -> None:
    job = store.create(new())
    job_id, attempt = claimed(store)
    assert store.cancel(job_id)
    assert not store.cancel(job_id)
    assert not store.add_segments(job_id, attempt, [segment(0)], progress=1.0)
    assert not store.finish(job_id, attempt, language="sv", coverage={})
    assert store.running() == {}
    detached = store.create(new(detached=True))
    assert not store.cancel(detached.id, unless_detached=True)
    assert store.cancel(detached.id)
    assert job.id != detached.id


def test_deleted_text_is_not_in_the_file(store: Store, tmp_path: Path) -> None:
    store.create(new())
    job_id, attempt = claimed(store)
    store.add_segments(job_id, attempt, [segment(0, " hemligheten")], progress=1.0)
    store.finish(job_id, attempt, language="sv", coverage={})
    files = list(tmp_path.glob("jobs.sqlite3*"))
    assert any(b"hemligheten" in file.read_bytes() for file in files)
    assert store.delete(job_id)
    assert not store.delete(job_id)
    assert (store.get(job_id), store.segments(job_id)) == (None, [])
    assert not any(b"hemligheten" in file.read_bytes() for file in files)


def test_deleted_text_that_somebody_still_reads_goes_from_the_file_later(store: Store, tmp_path: Path) -> None:
    store.create(new())
    job_id, attempt = claimed(store)
    store.add_segments(job_id, attempt, [segment(0, " hemligheten")], progress=1.0)
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM segments").fetchone() == (1,)
        assert store.delete(job_id)
        assert other.execute("SELECT count(*) FROM segments").fetchone() == (1,)
    store.scrub()  # as retention does each minute
    assert not any(b"hemligheten" in file.read_bytes() for file in tmp_path.glob("jobs.sqlite3*"))


def test_expiry_takes_what_finished_long_ago(store: Store, clock: Clock) -> None:
    old = store.create(new())
    store.cancel(old.id)
    clock.now += 100
    recent, waiting = store.create(new()), store.create(new())
    store.cancel(recent.id)
    assert store.expire(clock.now - 50) == [old.id]
    assert store.get(old.id) is None
    assert store.unfinished() == [waiting]
    assert store.counts() == {"cancelled": 1, "queued": 1}


def test_a_ticket_keeps_a_job_only_as_long_as_the_machine_is_of_a_fleet(store: Store, clock: Clock) -> None:
    job = store.create(new())
    store.tickets.put(Ticket(job.id, "queue", "receipt", "message", 1, adopted=True))
    store.cancel(job.id)
    assert (store.expire(clock.now + 50, fleet=True), store.tickets.get(job.id) is None) == ([], False)
    assert (store.expire(clock.now + 50), store.tickets.get(job.id)) == ([job.id], None)


def test_jobs_are_listed_for_their_key_alone(store: Store, clock: Clock) -> None:
    mine = []
    for _ in range(3):
        clock.now += 1
        mine.append(store.create(new("a")).id)
        store.create(new("b"))
    assert [job.id for job in store.jobs("a", limit=2)] == [mine[2], mine[1]]
    assert [job.id for job in store.jobs("a", before=clock.now)] == [mine[1], mine[0]]


def test_callbacks_wait_for_the_end_and_happen_once(store: Store) -> None:
    job = store.create(new(callback="https://example.org/done"))
    store.create(new())
    assert store.pending_webhooks() == []
    store.cancel(job.id)
    assert [(found.id, found.callback) for found in store.pending_webhooks()] == [(job.id, "https://example.org/done")]
    store.webhook_done(job.id)
    assert store.pending_webhooks() == []


def test_the_workers_facts(store: Store, clock: Clock) -> None:
    assert store.worker() is None
    store.set_worker({"state": "loading"})
    store.set_worker({"state": "ready", "cuda": False})
    assert store.worker() == {"state": "ready", "cuda": False, "updated": clock.now}


@pytest.mark.parametrize("body", ["{", "[]", "7", "null", b"\xff", 7])
def test_facts_that_cannot_be_read_keep_neither_process_from_starting(store: Store, tmp_path: Path, body: Any) -> None:
    store.set_worker({"state": "ready"})
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as other, other:
        other.execute("UPDATE facts SET body = CAST(? AS TEXT)", (body,))
    assert store.worker() is None
    watcher = JobWatcher(store)
    watcher.start()
    watcher.stop()
    assert watcher.snapshot.worker_state == "absent"
    StatusReporter(store).set_state("loading")
    assert (store.worker() or {})["state"] == "loading"


def test_a_text_that_cannot_be_read_keeps_no_commit_waiting(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3", busy_seconds=0.5)
    store.create(new())
    job, attempt = claimed(store)
    store.add_segments(job, attempt, [segment(number) for number in range(3)], progress=3.0, resume={"chunks": 1})
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as other, other:
        other.execute("UPDATE segments SET body = '{' WHERE id = 0")
    try:
        store.segments(job)
    except ValueError:  # as long as it is handled, it holds what was being read
        assert store.restart(job, attempt)
    else:
        pytest.fail("that was no text")
    assert store.segments(job) == []
    store.close()


def test_a_version_that_is_a_kind_of_str_is_stored(store: Store) -> None:
    store.set_worker({"state": "ready", "torch": torch.__version__})  # torch.torch_version.TorchVersion
    facts = store.worker()
    assert facts is not None
    assert facts["torch"] == str(torch.__version__)


def test_the_version_tells_of_every_commit_and_of_nothing_else(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "jobs.sqlite3")
    seen = [other.version()]
    for change in (lambda: store.create(new()), lambda: other.create(new()), store.claim):
        change()
        seen.append(other.version())
    assert len(set(seen)) == 4
    store.claim()
    before = other.version()
    assert store.claim() is None
    assert other.version() == before


def test_another_schema_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match=r"jobs.sqlite3 cannot .* schema is version 7, this program knows 5"):
        Store(path)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "jobs.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"jobs.sqlite3 cannot be used"):
        Store(path)


def test_bounds_refuse_with_the_excess(store: Store) -> None:
    bounds = Bounds(jobs=3, audio_seconds=100.0, key_jobs=2)
    store.create(new("a", estimate=40.0), bounds=bounds)
    store.create(new("a", estimate=40.0), bounds=bounds)
    with pytest.raises(QueueFullError) as key:
        store.create(new("a", estimate=1.0), bounds=bounds)
    assert (key.value.bound, key.value.excess) == ("key_jobs", 40.0)
    with pytest.raises(QueueFullError) as audio:
        store.create(new("b", estimate=30.0), bounds=bounds)
    assert (audio.value.bound, audio.value.excess) == ("audio_seconds", 10.0)
    store.create(new("b", estimate=10.0), bounds=bounds)
    with pytest.raises(QueueFullError) as jobs:
        store.create(new("c", estimate=1.0), bounds=bounds)
    assert (jobs.value.bound, jobs.value.excess) == ("jobs", 30.0)


def test_a_key_leaves_room_to_others_once_there_are_others(store: Store) -> None:
    bounds = Bounds(jobs=100, audio_seconds=1000.0, key_jobs=50)
    for _ in range(5):
        store.create(new("a", estimate=1.0), bounds=bounds)
    store.create(new("b", estimate=1.0), bounds=bounds)
    for _ in range(5):  # the worker measures their true length
        job = store.claim(keys=["b"])
        assert job is not None
        assert store.set_duration(job.id, 1, 120.0)
    with pytest.raises(QueueFullError) as full:
        store.create(new("a", estimate=1.0), bounds=bounds)
    assert full.value.bound == "key_audio_seconds"
    assert store.create(new("b", estimate=100.0), bounds=bounds)


def test_one_very_long_recording_may_come_when_nothing_waits(store: Store) -> None:
    store.create(new(estimate=500.0), bounds=Bounds(jobs=3, audio_seconds=100.0, key_jobs=2))


def test_a_repeat_is_the_same_job_only_for_its_key(store: Store, clock: Clock) -> None:
    first = store.create(new("a", fingerprint="f"))
    clock.now += 10
    assert store.create(new("a", fingerprint="f"), reuse_since=1000.0).id == first.id
    assert store.create(new("b", fingerprint="f"), reuse_since=1000.0).id != first.id
    assert store.create(new("a", fingerprint="g"), reuse_since=1000.0).id != first.id
    assert store.create(new("a", fingerprint="f"), reuse_since=1005.0).id != first.id
    store.cancel(first.id)
    assert store.create(new("a", fingerprint="f"), reuse_since=1000.0).id != first.id


def test_a_repeat_that_is_detached_detaches_the_job(store: Store) -> None:
    first = store.create(new(fingerprint="f"))
    assert store.create(new(fingerprint="f", detached=True), reuse_since=0.0).detached
    assert not store.cancel(first.id, unless_detached=True)


def test_a_clock_that_is_set_back_keeps_no_job_waiting(store: Store, clock: Clock) -> None:
    clock.now = 9000.0  # it went two hours ahead, and a job was set back
    job = store.create(new())
    claimed = store.claim()
    assert claimed
    assert store.release(job.id, claimed.attempts, delay=30.0)
    assert store.claim() is None
    clock.now = 1000.0
    assert store.claim()
