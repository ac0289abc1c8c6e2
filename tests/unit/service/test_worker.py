"""The worker's loop with the real store, decoder and cutter, and an engine that needs no model."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.worker_fixture import FakeEngine, ServiceFixture, running_worker, service_fixture, wav
from transcribe import memory
from transcribe.audio import decoder
from transcribe.engine import Chunk, EngineError
from transcribe.worker import loop
from transcribe.worker.assembly import LOWEST_LOGPROB
from transcribe.worker.preprocess import Preprocessor


def test_a_recording_becomes_text_in_order(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine()) as running:
        job = service.wait(service.submit(wav(100.0)))
    assert job.status == "done"
    assert job.duration == pytest.approx(100.0)
    assert job.progress == job.duration
    segments = service.store.segments(job.id)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert [segment.text for segment in segments] == [f" {job.id[:8]}/{n}." for n in range(len(segments))]
    assert len(segments) >= 4
    assert all(left.end <= right.start for left, right in pairwise(segments))
    assert job.coverage is not None
    assert job.coverage["speech_seconds"] == pytest.approx(100 * 8 / 8.5, rel=0.05)
    assert job.coverage["text_seconds"] == pytest.approx(job.coverage["speech_seconds"])
    assert running.reporter.meter.totals["jobs_done_total"] == 1


def test_figures_that_json_cannot_hold_do_not_lose_the_text(service: ServiceFixture) -> None:
    engine = FakeEngine(figures={"avg_logprob": float("nan"), "no_speech_prob": float("nan")})
    with running_worker(service, engine):
        job = service.wait(service.submit(wav(3.0)))
    [segment] = service.store.segments(job.id)
    assert (job.status, segment.avg_logprob, segment.no_speech_prob) == ("done", LOWEST_LOGPROB, 0.0)


@pytest.mark.parametrize("given", ["prompt", "hotwords"])
def test_words_that_the_model_was_given_to_read_do_not_come_back_as_text(service: ServiceFixture, given: str) -> None:
    engine = FakeEngine(figures={"text": " Umeå.", "no_speech_prob": 0.9})
    options: dict[str, Any] = {given: "Luleå, Umeå"}
    with running_worker(service, engine):
        job = service.wait(service.submit(wav(8.0), **options))
    assert service.text(job.id) == ""
    assert [entry["reason"] for entry in (job.coverage or {})["dropped"]] == ["prompt"]


def test_silence_is_done_without_text(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine()) as running:
        job = service.wait(service.submit(wav(40.0, speech=0.0, pause=1.0), language=None))
    assert (job.status, job.language) == ("done", "sv")
    assert service.store.segments(job.id) == []
    assert running.engine.received == []


def test_a_bad_recording_fails_with_the_clients_status(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine()):
        job = service.wait(service.submit(b"Dear Sir"))
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.status, job.error.code, job.error.param) == (400, "invalid_audio", "file")


def test_a_language_that_the_model_lacks_fails_with_the_clients_status(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine()):
        job = service.wait(service.submit(wav(3.0), language="xx"))
        other = service.wait(service.submit(wav(3.0)))
    assert job.error is not None
    assert job.error.status == 400
    assert "'xx'" in job.error.message
    assert other.status == "done"


def test_a_job_that_is_cancelled_before_it_fails_is_not_counted_as_failed(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preprocessor, "_remove_cancelled", lambda _: None)  # the loop is faster than that
    engine = FakeEngine()

    def refuse(chunk: Chunk) -> None:
        assert isinstance(chunk.key, tuple)
        service.store.cancel(chunk.key[0])
        raise EngineError("the model cannot do this")

    monkeypatch.setattr(engine, "add", refuse)
    with running_worker(service, engine) as running:
        job = service.wait(service.submit(wav(3.0)))
        service.until(lambda: not len(running.worker._scheduler))
    assert job.status == "cancelled"
    assert running.reporter.meter.totals["jobs_failed_total"] == 0


def test_one_language_is_kept_for_the_whole_recording(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine(language="da")) as running:
        job = service.wait(service.submit(wav(100.0), language=None))
    assert job.language == "da"
    assert [chunk.options.language for chunk in running.engine.received] == [None] + ["da"] * (
        len(running.engine.received) - 1
    )


def test_chunks_of_many_requests_share_the_batch(service: ServiceFixture) -> None:
    engine = FakeEngine.paused()
    with running_worker(service, engine):
        ids = [service.submit(wav(3.0)) for _ in range(6)]
        service.until(lambda: len(engine.in_flight) == 4)
        engine.hold.clear()
        assert [service.wait(job).status for job in ids] == ["done"] * 6
    assert engine.largest_batch == 4


def test_a_short_clip_does_not_wait_for_a_long_file(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine(delay=0.05)) as running:
        long = service.submit(wav(1200.0), estimate=1200.0)
        service.until(lambda: len(service.store.segments(long)) > 2)
        before = len(service.store.segments(long))
        short = service.wait(service.submit(wav(3.0), estimate=3.0))
        between = len(service.store.segments(long)) - before
        assert not service.job(long).over
        service.store.cancel(long)
    assert short.status == "done"
    assert between <= 8  # those in the batch already, and a few while it was decoded
    assert running.engine.largest_batch <= 4


@pytest.mark.slow
def test_a_long_file_is_not_starved_by_short_ones(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine(delay=0.02)):
        long = service.submit(wav(600.0), estimate=600.0)
        service.until(lambda: service.job(long).status == "running")
        clips = [service.submit(wav(3.0), estimate=3.0) for _ in range(100)]
        service.until(lambda: sum(service.job(clip).over for clip in clips) > 60)
        assert service.store.segments(long)
        for clip in clips:
            service.store.cancel(clip)
        service.store.cancel(long)


def test_a_single_file_leaves_a_place_free(service: ServiceFixture) -> None:
    engine = FakeEngine.paused()
    with running_worker(service, engine):
        job = service.submit(wav(600.0))
        service.until(lambda: len(engine.in_flight) == 3)
        short = service.submit(wav(3.0))
        service.until(lambda: len(engine.in_flight) == 4)
        assert {chunk.key[0] for chunk in engine.in_flight} == {job, short}  # type: ignore[index]
        service.store.cancel(job)


def test_many_long_files_leave_room_for_a_short_one(service: ServiceFixture) -> None:
    engine = FakeEngine.paused(delay=0.02)
    with running_worker(service, engine):
        longs = [service.submit(wav(300.0), estimate=300.0) for _ in range(8)]
        service.until(lambda: service.store.queue_stats().running == 4)
        short = service.submit(wav(3.0), estimate=3.0)
        service.until(lambda: service.job(short).status == "running")
        assert service.store.queue_stats().queued == 4
        engine.hold.clear()
        assert service.wait(short).status == "done"
        for job in longs:
            service.store.cancel(job)


def test_a_recording_does_not_wait_for_four_of_another_length(service: ServiceFixture) -> None:
    engine = FakeEngine.paused(delay=0.02)
    with running_worker(service, engine):
        longs = [service.submit(wav(900.0), estimate=900.0) for _ in range(4)]
        service.until(lambda: service.store.queue_stats().running == 4)
        engine.hold.clear()
        assert service.wait(service.submit(wav(70.0), estimate=70.0)).status == "done"
        assert not any(service.job(job).over for job in longs)
        for job in longs:
            service.store.cancel(job)


def test_a_flood_of_one_key_leaves_places_to_another(service: ServiceFixture) -> None:
    engine = FakeEngine()
    with running_worker(service, engine):
        service.wait(service.submit(wav(3.0), key="quiet"))
        engine.hold.set()
        flood = [service.submit(wav(3.0), key="flood", estimate=3.0) for _ in range(30)]
        service.until(lambda: len(engine.in_flight) == 3)
        quiet = service.submit(wav(3.0), key="quiet")
        service.until(lambda: any(chunk.key[0] == quiet for chunk in engine.in_flight))  # type: ignore[index]
        engine.hold.clear()
        assert service.wait(quiet).status == "done"
        for job in flood:
            service.store.cancel(job)


def test_a_cancelled_job_leaves_at_once_and_its_decoder_ends(service: ServiceFixture) -> None:
    engine = FakeEngine.paused()
    with running_worker(service, engine):
        job = service.submit(wav(1200.0))
        service.until(lambda: len(engine.in_flight) == 3)
        service.store.cancel(job)
        service.until(lambda: not engine.in_flight, seconds=5)
        engine.hold.clear()
        assert service.wait(service.submit(wav(3.0))).status == "done"
    assert len(engine.discarded) == 3
    assert service.job(job).status == "cancelled"


def test_a_deleted_job_is_forgotten(service: ServiceFixture) -> None:
    engine = FakeEngine.paused()
    with running_worker(service, engine):
        job = service.submit(wav(60.0))
        service.until(lambda: engine.in_flight)
        service.store.delete(job)
        service.until(lambda: not engine.in_flight, seconds=5)
    assert service.store.get(job) is None


def test_draining_finishes_what_is_short_and_takes_nothing_new(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine(delay=0.05)) as running:
        job = service.submit(wav(100.0))
        service.until(lambda: service.store.segments(job))
        running.worker.stop()
        service.until(lambda: (service.store.worker() or {}).get("state") == "draining")
        late = service.submit(wav(3.0))
        assert service.wait(job).status == "done"
    assert service.job(late).status == "queued"


def test_what_cannot_be_finished_in_time_is_given_back_without_counting(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "DRAIN_SECONDS", 0.2)
    engine = FakeEngine.paused()
    with running_worker(service, engine) as running:
        job = service.submit(wav(100.0))
        service.until(lambda: engine.in_flight)
        running.worker.stop()
        service.until(lambda: service.job(job).status == "queued", seconds=5)
    again = service.job(job)
    assert again.status == "queued"
    assert service.store.segments(job) == []


def test_a_broken_engine_ends_the_worker_and_the_next_one_does_the_job(tmp_path: Path) -> None:
    first = service_fixture(tmp_path, batch__max_chunks=4)
    with running_worker(first, FakeEngine(error=RuntimeError("CUDA error"))) as running:
        job = first.submit(wav(10.0))
        first.until(lambda: running.failure is not None)
    assert "CUDA" in str(running.failure)
    first.store.close()
    second = service_fixture(tmp_path, batch__max_chunks=4)
    assert second.store.requeue_running() == ([job], [])
    with running_worker(second, FakeEngine()):
        assert second.wait(job).status == "done"
        assert second.job(job).attempts == 2
    second.store.close()


def test_a_job_that_kills_the_worker_three_times_fails_with_the_reason(tmp_path: Path) -> None:
    for attempt in range(3):
        service = service_fixture(tmp_path)
        if attempt:
            service.store.requeue_running()
        else:
            job = service.submit(wav(10.0))
        with running_worker(service, FakeEngine(error=RuntimeError("again"))) as running:
            service.until(lambda running=running: running.failure is not None)
        service.store.close()
    service = service_fixture(tmp_path)
    assert service.store.requeue_running() == ([], [job])
    assert service.job(job).error is not None
    assert service.job(job).error.code == "worker_died"  # type: ignore[union-attr]
    service.store.close()


def test_a_job_that_killed_two_workers_is_worked_on_alone(service: ServiceFixture) -> None:
    suspects = [service.submit(wav(3.0)) for _ in range(2)]
    for _ in range(2):
        assert service.store.claim()
        assert service.store.claim()
        service.store.requeue_running()
    engine = FakeEngine()
    with running_worker(service, engine):
        clips = [service.submit(wav(3.0)) for _ in range(4)]
        assert [service.wait(job).status for job in suspects] == ["done"] * 2
        assert [service.wait(clip).status for clip in clips] == ["done"] * 4
    tries = {chunk.key[0]: chunk.key[1] for chunk in engine.received}  # type: ignore[index]
    assert sorted(tries.values()) == [1, 1, 1, 1, 3, 3]
    assert not engine.shared_last_try


def test_after_a_while_without_work_the_engine_rests_and_memory_goes_back(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REST_SECONDS", 0.1)
    engine, given_back = FakeEngine(), list[int]()
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(engine.rested))
    with running_worker(service, engine):
        service.wait(service.submit(wav(3.0)))
        service.until(lambda: given_back)
    assert given_back[0] == 1


def test_the_decoder_stops_ahead_of_a_slow_model(service: ServiceFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of audio must not pile up in memory while the model works."""
    opened: list[decoder.Decoder] = []
    original = decoder.Decoder.__enter__

    def enter(self: decoder.Decoder) -> decoder.Decoder:
        opened.append(self)
        return original(self)

    monkeypatch.setattr(decoder.Decoder, "__enter__", enter)
    engine = FakeEngine.paused()
    with running_worker(service, engine):
        job = service.submit(wav(1800.0))
        service.until(lambda: len(engine.in_flight) == 3)
        service.until(lambda: opened[0].seconds > 150)
        time.sleep(0.3)
        assert opened[0].seconds < 300
        service.store.cancel(job)
