"""Speakers in the worker: heard while chunks are cut, told apart at the end, whatever happens in between."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.fake_vad import FakeVad
from support.voices import HIGH, LOW, PITCHES, WordEngine, turns
from support.worker_fixture import ServiceFixture, running_worker, service_fixture, wav
from transcribe.audio.vad import Vad
from transcribe.jobs import uploads
from transcribe.jobs.models import NewJob
from transcribe.jobs.sqlite import sqlite3
from transcribe.speakers import words
from transcribe.types import DecodeOptions, SpeakerOptions
from transcribe.worker import loop
from transcribe.worker.listener import Detectors, Listener
from transcribe.worker.preprocess import Preprocessor

pytestmark = pytest.mark.slow


def spoken(service: ServiceFixture, job: str) -> list[tuple[str | None, float]]:
    """Who speaks, and from when on, without what the same one says next."""
    found: list[tuple[str | None, float]] = []
    for segment in service.store.segments(job):
        assert segment.words
        assert {word.speaker for word in segment.words} == {segment.speaker}
        if not found or found[-1][0] != segment.speaker:
            found.append((segment.speaker, round(segment.start)))
    return found


def test_turns_are_cut_at_words_and_ids_run_on(service: ServiceFixture) -> None:
    with running_worker(service, WordEngine(), speakers=PITCHES):
        job = service.wait(service.submit(turns(*[HIGH, LOW] * 5), speakers=SpeakerOptions()))
    assert job.status == "done"
    assert [speaker for speaker, _ in spoken(service, job.id)] == ["A", "B"] * 5
    for (_, at), expected in zip(spoken(service, job.id), np.arange(10) * 4.5, strict=True):
        assert at == pytest.approx(expected, abs=1.0)
    segments = service.store.segments(job.id)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert all(s.text == "".join(w.word for w in s.words or ()) for s in segments)


def test_the_true_length_is_stored_though_the_estimate_was_near(service: ServiceFixture) -> None:
    with running_worker(service, WordEngine(), speakers=PITCHES):
        job = service.wait(service.submit(turns(HIGH, LOW), estimate=9.4, speakers=SpeakerOptions()))
    assert job.status == "done"
    assert job.duration == job.progress == pytest.approx(9.0)


def test_a_job_that_is_cancelled_while_its_turns_are_cut_is_not_counted_as_done(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preprocessor, "_remove_cancelled", lambda _: None)  # the loop is faster than that
    original = words.assign

    def cancelling(*arguments: Any) -> Any:
        service.store.cancel(job)
        return original(*arguments)

    monkeypatch.setattr(words, "assign", cancelling)
    with running_worker(service, WordEngine(), speakers=PITCHES) as running:
        job = service.submit(turns(HIGH, LOW), speakers=SpeakerOptions())
        service.until(lambda: service.job(job).over and not len(running.worker._scheduler))
    assert service.job(job).status == "cancelled"
    assert running.reporter.meter.totals["jobs_done_total"] == 0


def test_channels_heard_each_by_itself_are_the_speakers(service: ServiceFixture) -> None:
    stereo = turns(HIGH, LOW, channels=2)
    with running_worker(service, WordEngine(), speakers=PITCHES):
        job = service.wait(service.submit(stereo, speakers=SpeakerOptions(), channels="separate"))
    assert {segment.speaker for segment in service.store.segments(job.id)} == {"channel 1", "channel 2"}


def test_an_attempt_that_goes_on_hears_the_voices_again(tmp_path: Path) -> None:
    first = service_fixture(tmp_path, batch__max_chunks=4)
    job = first.submit(turns(*[HIGH, LOW] * 20), speakers=SpeakerOptions())
    engine = WordEngine(capacity=1, delay=0.03)
    with running_worker(first, engine, speakers=PITCHES) as running:
        first.until(lambda: len(first.store.segments(job)) > 2)
        engine.error = RuntimeError("CUDA error")
        first.until(lambda: running.failure is not None)
    kept = len(first.store.segments(job))
    first.store.close()
    second = service_fixture(tmp_path, batch__max_chunks=4)
    second.store.requeue_running()
    rest = WordEngine()
    with running_worker(second, rest, speakers=PITCHES):
        assert second.wait(job).status == "done"
    assert min(chunk.key[2] for chunk in rest.received) == kept  # type: ignore[index]
    assert [speaker for speaker, _ in spoken(second, job)] == ["A", "B"] * 20
    second.store.close()


def submit_with_references(service: ServiceFixture, *references: bytes) -> str:
    """A job whose speakers are known by these recordings."""
    names = tuple(f"Voice {number}" for number in range(len(references)))
    new = NewJob("key", DecodeOptions(language="en", speakers=SpeakerOptions(known_names=names)), detached=True)
    uploads.recording(service.config.temp, new.id).write_bytes(turns(*[HIGH, LOW] * 3))
    for number, data in enumerate(references):
        uploads.reference(service.config.temp, new.id, number).write_bytes(data)
    return service.store.create(new).id


def test_known_voices_have_their_names_and_others_letters(service: ServiceFixture) -> None:
    with running_worker(service, WordEngine(), speakers=PITCHES):
        one = service.wait(submit_with_references(service, turns(LOW)))
        both = service.wait(submit_with_references(service, turns(LOW), turns(HIGH)))
    assert [speaker for speaker, _ in spoken(service, one.id)] == ["A", "Voice 0"] * 3
    assert [speaker for speaker, _ in spoken(service, both.id)] == ["Voice 1", "Voice 0"] * 3


@pytest.mark.parametrize("data", [b"Dear Sir", turns(LOW, seconds=0.7), wav(5.0, speech=0.0, pause=5.0)])
def test_a_reference_without_a_voice_is_the_clients_error(service: ServiceFixture, data: bytes) -> None:
    with running_worker(service, WordEngine(), speakers=PITCHES):
        job = service.wait(submit_with_references(service, turns(LOW), data))
    assert job.error is not None
    assert (job.status, job.error.status, job.error.param) == ("failed", 400, "known_speaker_references[1]")
    assert "known_speaker_references[1]" in job.error.message


def test_without_a_speaker_model_only_speakers_are_refused(service: ServiceFixture) -> None:
    with running_worker(service, WordEngine()):
        refused = service.wait(service.submit(wav(3.0), speakers=SpeakerOptions()))
        other = service.wait(service.submit(wav(3.0)))
    assert refused.error is not None
    assert (refused.error.status, refused.error.param, other.status) == (400, "speakers", "done")
    assert [segment.speaker for segment in service.store.segments(other.id)] == [None]


@pytest.mark.parametrize("broken", ["store", "assignment"])
def test_what_fails_when_the_turns_are_cut_costs_no_other_job(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    owner, name = (service.store, "segments") if broken == "store" else (words, "assign")
    original = getattr(owner, name)
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
    failures: Iterator[Exception] = iter([locked if broken == "store" else ValueError("a defect")])

    def failing(*arguments: Any) -> Any:
        for error in failures:
            raise error
        return original(*arguments)

    monkeypatch.setattr(owner, name, failing)
    monkeypatch.setattr(loop, "LONGEST_DELAY", 0.1)
    with running_worker(service, WordEngine(), speakers=PITCHES) as running:
        job = service.wait(service.submit(turns(HIGH, LOW), speakers=SpeakerOptions()))
        assert running.failure is None
    assert (job.status, job.setbacks) == ("done", int(broken == "assignment"))
    assert [speaker for speaker, _ in spoken(service, job.id)] == ["A", "B"]


def test_hours_that_are_cut_into_turns_keep_no_other_job_waiting(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, other_done, waited = words.assign, threading.Event(), list[bool]()

    def slow(*arguments: Any) -> Any:
        waited.append(other_done.wait(10))
        return original(*arguments)

    monkeypatch.setattr(words, "assign", slow)
    with running_worker(service, WordEngine(), speakers=PITCHES):
        job = service.submit(turns(HIGH, LOW), speakers=SpeakerOptions())
        service.until(lambda: len(service.store.segments(job)) > 0)
        service.wait(service.submit(wav(3.0)))
        other_done.set()
        assert service.wait(job).status == "done"
    assert waited == [True]


class Processor:
    """Counts how often it is asked for."""

    times = 0

    def __enter__(self) -> None:
        self.times += 1

    def __exit__(self, *_: object) -> None:
        pass


def test_the_references_are_heard_in_turns_with_other_recordings(service: ServiceFixture) -> None:
    job = service.store.get(submit_with_references(service, turns(LOW, LOW, LOW, LOW), turns(HIGH)))
    assert job is not None
    processor = Processor()
    Listener.of(job, service.config, Detectors(cast(Vad, FakeVad()), PITCHES), processor)
    assert processor.times > 4
