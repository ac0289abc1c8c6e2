"""The worker's loop with the real store, decoder and cutter, and an engine that needs no model."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.worker_shop import FakeEngine, Shop, shop, wav, working
from transcribe.audio import decoder
from transcribe.worker import loop
from transcribe.worker.assembly import LOWEST_LOGPROB


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Shop]:
    found = shop(tmp_path, batch__max_chunks=4)
    yield found
    found.store.close()


def test_a_recording_becomes_text_in_order(place: Shop) -> None:
    with working(place, FakeEngine()) as running:
        job = place.ended(place.submit(wav(100.0)))
    assert job.status == "done"
    assert job.duration == pytest.approx(100.0)
    assert job.progress == job.duration
    segments = place.store.segments(job.id)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert [segment.text for segment in segments] == [f" {job.id[:8]}/{n}." for n in range(len(segments))]
    assert len(segments) >= 4
    assert all(left.end <= right.start for left, right in pairwise(segments))
    assert job.coverage is not None
    assert job.coverage["speech_seconds"] == pytest.approx(100 * 8 / 8.5, rel=0.05)
    assert job.coverage["text_seconds"] == pytest.approx(job.coverage["speech_seconds"])
    assert running.reporter.meter.totals["jobs_done_total"] == 1


def test_figures_that_json_cannot_hold_do_not_lose_the_text(place: Shop) -> None:
    engine = FakeEngine(figures={"avg_logprob": float("nan"), "no_speech_prob": float("nan")})
    with working(place, engine):
        job = place.ended(place.submit(wav(3.0)))
    [segment] = place.store.segments(job.id)
    assert (job.status, segment.avg_logprob, segment.no_speech_prob) == ("done", LOWEST_LOGPROB, 0.0)


def test_silence_is_done_without_text(place: Shop) -> None:
    with working(place, FakeEngine()) as running:
        job = place.ended(place.submit(wav(40.0, speech=0.0, pause=1.0), language=None))
    assert (job.status, job.language) == ("done", "sv")
    assert place.store.segments(job.id) == []
    assert running.engine.seen == []


def test_a_bad_recording_fails_with_the_clients_status(place: Shop) -> None:
    with working(place, FakeEngine()):
        job = place.ended(place.submit(b"Dear Sir"))
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.status, job.error.code, job.error.param) == (400, "invalid_audio", "file")


def test_a_language_that_the_model_lacks_fails_with_the_clients_status(place: Shop) -> None:
    with working(place, FakeEngine()):
        job = place.ended(place.submit(wav(3.0), language="xx"))
        other = place.ended(place.submit(wav(3.0)))
    assert job.error is not None
    assert job.error.status == 400
    assert "'xx'" in job.error.message
    assert other.status == "done"


def test_one_language_is_kept_for_the_whole_recording(place: Shop) -> None:
    with working(place, FakeEngine(language="da")) as running:
        job = place.ended(place.submit(wav(100.0), language=None))
    assert job.language == "da"
    assert [chunk.options.language for chunk in running.engine.seen] == [None] + ["da"] * (len(running.engine.seen) - 1)


def test_chunks_of_many_requests_share_the_batch(place: Shop) -> None:
    engine = FakeEngine()
    engine.hold.set()
    with working(place, engine):
        ids = [place.submit(wav(3.0)) for _ in range(6)]
        place.until(lambda: len(engine.inside) == 4)
        engine.hold.clear()
        assert [place.ended(job).status for job in ids] == ["done"] * 6
    assert engine.fullest == 4


def test_a_short_clip_does_not_wait_for_a_long_file(place: Shop) -> None:
    with working(place, FakeEngine(delay=0.05)) as running:
        long = place.submit(wav(1200.0), estimate=1200.0)
        place.until(lambda: len(place.store.segments(long)) > 2)
        before = len(place.store.segments(long))
        short = place.ended(place.submit(wav(3.0), estimate=3.0))
        between = len(place.store.segments(long)) - before
        assert not place.job(long).over
        place.store.cancel(long)
    assert short.status == "done"
    assert between <= 8  # those in the batch already, and a few while it was decoded
    assert running.engine.fullest <= 4


@pytest.mark.slow
def test_a_long_file_is_not_starved_by_short_ones(place: Shop) -> None:
    with working(place, FakeEngine(delay=0.02)):
        long = place.submit(wav(600.0), estimate=600.0)
        place.until(lambda: place.job(long).status == "running")
        clips = [place.submit(wav(3.0), estimate=3.0) for _ in range(100)]
        place.until(lambda: sum(place.job(clip).over for clip in clips) > 60)
        assert place.store.segments(long)
        for clip in clips:
            place.store.cancel(clip)
        place.store.cancel(long)


def test_a_single_file_leaves_a_place_free(place: Shop) -> None:
    engine = FakeEngine()
    engine.hold.set()
    with working(place, engine):
        job = place.submit(wav(600.0))
        place.until(lambda: len(engine.inside) == 3)
        short = place.submit(wav(3.0))
        place.until(lambda: len(engine.inside) == 4)
        assert {chunk.key[0] for chunk in engine.inside} == {job, short}  # type: ignore[index]
        place.store.cancel(job)


def test_many_long_files_leave_room_for_a_short_one(place: Shop) -> None:
    engine = FakeEngine(delay=0.02)
    engine.hold.set()
    with working(place, engine):
        longs = [place.submit(wav(300.0), estimate=300.0) for _ in range(8)]
        place.until(lambda: place.store.queue_stats().running == 4)
        short = place.submit(wav(3.0), estimate=3.0)
        place.until(lambda: place.job(short).status == "running")
        assert place.store.queue_stats().queued == 4
        engine.hold.clear()
        assert place.ended(short).status == "done"
        for job in longs:
            place.store.cancel(job)


def test_a_recording_does_not_wait_for_four_of_another_length(place: Shop) -> None:
    engine = FakeEngine(delay=0.02)
    engine.hold.set()
    with working(place, engine):
        longs = [place.submit(wav(900.0), estimate=900.0) for _ in range(4)]
        place.until(lambda: place.store.queue_stats().running == 4)
        engine.hold.clear()
        assert place.ended(place.submit(wav(70.0), estimate=70.0)).status == "done"
        assert not any(place.job(job).over for job in longs)
        for job in longs:
            place.store.cancel(job)


def test_a_flood_of_one_key_leaves_places_to_another(place: Shop) -> None:
    engine = FakeEngine()
    with working(place, engine):
        place.ended(place.submit(wav(3.0), key="quiet"))
        engine.hold.set()
        flood = [place.submit(wav(3.0), key="flood", estimate=3.0) for _ in range(30)]
        place.until(lambda: len(engine.inside) == 3)
        quiet = place.submit(wav(3.0), key="quiet")
        place.until(lambda: any(chunk.key[0] == quiet for chunk in engine.inside))  # type: ignore[index]
        engine.hold.clear()
        assert place.ended(quiet).status == "done"
        for job in flood:
            place.store.cancel(job)


def test_a_cancelled_job_leaves_at_once_and_its_decoder_ends(place: Shop) -> None:
    engine = FakeEngine()
    engine.hold.set()
    with working(place, engine):
        job = place.submit(wav(1200.0))
        place.until(lambda: len(engine.inside) == 3)
        place.store.cancel(job)
        place.until(lambda: not engine.inside, seconds=5)
        engine.hold.clear()
        assert place.ended(place.submit(wav(3.0))).status == "done"
    assert len(engine.discarded) == 3
    assert place.job(job).status == "cancelled"


def test_a_deleted_job_is_forgotten(place: Shop) -> None:
    engine = FakeEngine()
    engine.hold.set()
    with working(place, engine):
        job = place.submit(wav(60.0))
        place.until(lambda: engine.inside)
        place.store.delete(job)
        place.until(lambda: not engine.inside, seconds=5)
    assert place.store.get(job) is None


def test_draining_finishes_what_is_short_and_takes_nothing_new(place: Shop) -> None:
    with working(place, FakeEngine(delay=0.05)) as running:
        job = place.submit(wav(100.0))
        place.until(lambda: place.store.segments(job))
        running.worker.stop()
        place.until(lambda: (place.store.worker() or {}).get("state") == "draining")
        late = place.submit(wav(3.0))
        assert place.ended(job).status == "done"
    assert place.job(late).status == "queued"


def test_what_cannot_be_finished_in_time_is_given_back_without_counting(
    place: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "DRAIN_SECONDS", 0.2)
    engine = FakeEngine()
    engine.hold.set()
    with working(place, engine) as running:
        job = place.submit(wav(100.0))
        place.until(lambda: engine.inside)
        running.worker.stop()
        place.until(lambda: place.job(job).status == "queued", seconds=5)
    again = place.job(job)
    assert again.status == "queued"
    assert place.store.segments(job) == []


def test_a_broken_engine_ends_the_worker_and_the_next_one_does_the_job(tmp_path: Path) -> None:
    first = shop(tmp_path, batch__max_chunks=4)
    with working(first, FakeEngine(trouble=RuntimeError("CUDA error"))) as running:
        job = first.submit(wav(10.0))
        first.until(lambda: running.failure is not None)
    assert "CUDA" in str(running.failure)
    first.store.close()
    second = shop(tmp_path, batch__max_chunks=4)
    assert second.store.requeue_running() == ([job], [])
    with working(second, FakeEngine()):
        assert second.ended(job).status == "done"
        assert second.job(job).attempts == 2
    second.store.close()


def test_a_job_that_kills_the_worker_three_times_fails_with_the_reason(tmp_path: Path) -> None:
    for attempt in range(3):
        place = shop(tmp_path)
        if attempt:
            place.store.requeue_running()
        else:
            job = place.submit(wav(10.0))
        with working(place, FakeEngine(trouble=RuntimeError("again"))) as running:
            place.until(lambda running=running: running.failure is not None)
        place.store.close()
    place = shop(tmp_path)
    assert place.store.requeue_running() == ([], [job])
    assert place.job(job).error is not None
    assert place.job(job).error.code == "worker_died"  # type: ignore[union-attr]
    place.store.close()


def test_a_job_that_killed_two_workers_is_worked_on_alone(place: Shop) -> None:
    suspects = [place.submit(wav(3.0)) for _ in range(2)]
    for _ in range(2):
        assert place.store.claim()
        assert place.store.claim()
        place.store.requeue_running()
    engine = FakeEngine()
    with working(place, engine):
        clips = [place.submit(wav(3.0)) for _ in range(4)]
        assert [place.ended(job).status for job in suspects] == ["done"] * 2
        assert [place.ended(clip).status for clip in clips] == ["done"] * 4
    tries = {chunk.key[0]: chunk.key[1] for chunk in engine.seen}  # type: ignore[index]
    assert sorted(tries.values()) == [1, 1, 1, 1, 3, 3]
    assert not engine.mixed


def test_the_decoder_stops_ahead_of_a_slow_model(place: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of audio must not pile up in memory while the model works."""
    opened: list[decoder.Decoder] = []
    original = decoder.Decoder.__enter__

    def enter(self: decoder.Decoder) -> decoder.Decoder:
        opened.append(self)
        return original(self)

    monkeypatch.setattr(decoder.Decoder, "__enter__", enter)
    engine = FakeEngine()
    engine.hold.set()
    with working(place, engine):
        job = place.submit(wav(1800.0))
        place.until(lambda: len(engine.inside) == 3)
        place.until(lambda: opened[0].seconds > 150)
        time.sleep(0.3)
        assert opened[0].seconds < 300
        place.store.cancel(job)
