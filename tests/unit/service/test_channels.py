"""Channels that are heard each by itself, from the file to the segments."""

import functools
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support import recordings
from support.decoding import DecodeLimits
from support.worker_fixture import CLIPS, FakeEngine, ServiceFixture, running_worker
from transcribe.audio.errors import AudioError
from transcribe.audio.recording import Hearing, Recording
from transcribe.audio.vad import Vad
from transcribe.engine import limit_threads
from transcribe.jobs.models import NewJob
from transcribe.types import SAMPLE_RATE, DecodeOptions, Segment
from transcribe.worker import loop

pytestmark = pytest.mark.slow

Samples = NDArray[np.float32]


def spoken() -> tuple[Samples, Samples]:
    """Two stretches of speech, half a minute each."""
    clips = [soundfile.read(path, dtype="float32")[0] for path in CLIPS]
    one, other = (np.concatenate([clips[number] for number in order] * 2) for order in ((0, 1, 2, 3), (2, 0, 3, 1)))
    return one, other


def turns(one: Samples, other: Samples, leak: float = 0.0) -> Samples:
    """Each speaks for four seconds at a time; `leak` is how loud each is on the other's channel."""
    first = np.arange(len(one)) // (4 * SAMPLE_RATE) % 2 == 0
    one, other = one * first, other * ~first
    return np.stack([one + leak * other, other + leak * one], 1)


def late(sound: Samples, seconds: float) -> Samples:
    return np.concatenate([np.zeros(int(seconds * SAMPLE_RATE), np.float32), sound])[: len(sound)]


def hiss(sound: Samples) -> Samples:
    return np.random.default_rng(0).normal(0.0, 0.003, len(sound)).astype(np.float32)


ONE, OTHER = spoken()
BOTH = np.stack([ONE, OTHER], 1)
KINDS: dict[str, tuple[Samples, tuple[int, ...]]] = {  # and the channels that are heard by themselves
    "turns": (turns(ONE, OTHER), (0, 1)),
    "turns, that leak": (turns(ONE, OTHER, leak=0.1), (0, 1)),
    "both at once": (BOTH, (0, 1)),
    "a copy": (np.stack([ONE, ONE], 1), ()),
    "a copy, turned over and softer": (np.stack([ONE, -0.1 * ONE], 1), ()),
    "a late copy": (np.stack([ONE, late(ONE, 0.12)], 1), ()),
    "silence": (np.stack([ONE, 0 * ONE], 1), ()),
    "hiss": (np.stack([ONE, hiss(ONE)], 1), ()),
    "one panned": (turns(ONE, OTHER, leak=0.4), ()),
    "two, and hiss": (np.column_stack([BOTH, hiss(ONE)]), (0, 1)),
}


@pytest.fixture(scope="module")
def vad() -> Vad:
    limit_threads(1)  # as the worker does
    return Vad.load()


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_heard_by_themselves_where_each_has_its_own_voice(kind: str, tmp_path: Path, vad: Vad) -> None:
    samples, own = KINDS[kind]
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    with Recording(tmp_path / "a.wav", DecodeLimits(), vad, Hearing("auto")) as recording:
        chunks = [chunk for step in recording for chunk in step]
    assert {chunk.channel for chunk in chunks} == set(own or (None,))
    assert recording.channels == (len(own) or 1)
    assert [warning for warning in recording.warnings if "were not heard: 3" in warning] == recording.warnings
    assert bool(recording.warnings) == (0 < len(own) < samples.shape[1])


def test_each_channel_is_cut_as_if_it_were_alone(tmp_path: Path, vad: Vad) -> None:
    def heard(samples: Samples, channels: str) -> list[tuple[float, int]]:
        soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
        with Recording(tmp_path / "a.wav", DecodeLimits(), vad, Hearing(channels)) as recording:
            chunks = [chunk for step in recording for chunk in step]
        assert chunks == sorted(chunks, key=lambda chunk: chunk.start)
        return [(chunk.start, len(chunk.audio)) for chunk in chunks if chunk.channel in (None, 1)]

    quiet_first = np.stack([late(ONE, 20.0), OTHER], 1)
    assert heard(quiet_first, "separate") == heard(OTHER, "mix")


TITLED = ("-metadata:s:a:0", "language=swe", "-metadata:s:a:0", "title=Tal")
OTHERS = ("-metadata:s:a:1", "language=eng", "-metadata:s:a:2", "language=eng")


@pytest.mark.parametrize(
    ("wanted", "start"),
    [("1", 0.0), ("2", 3.0), ("3", 6.0), ("tal", 0.0), ("Swedish", 0.0), ("en", None), ("4", None), ("x\ny", None)],
)
def test_a_sound_track_is_chosen_by_number_title_or_language(
    wanted: str, start: float | None, tmp_path: Path, vad: Vad
) -> None:
    graph = "asplit=3[a][y][z];[y]adelay=3000[b];[z]adelay=6000[c]"
    maps = ("-map", "[a]", "-map", "[b]", "-map", "[c]")
    path = recordings.made(tmp_path, "a.mka", "-i", CLIPS[1], "-filter_complex", graph, *maps, *TITLED, *OTHERS)
    with Recording(path, DecodeLimits(), vad, Hearing(audio_stream=wanted)) as recording:
        if start is None:
            with pytest.raises(AudioError, match=r'which has: 1 \(swe, "Tal"\), 2 \(eng\), 3 \(eng\)') as caught:
                list(recording)
            assert (caught.value.status, caught.value.param) == (400, "audio_stream")
            assert "\n" not in caught.value.message
            return
        [first, *_] = [chunk for step in recording for chunk in step]
    assert first.speech[0][0] == pytest.approx(start + 0.25, abs=0.3)
    assert recording.warnings == []


def bursts(seconds: float, *channels: tuple[float, float]) -> bytes:
    """A WAV with noise on each channel, in bursts of so many seconds with pauses of so many between them."""
    noise = np.random.default_rng(1).normal(0.0, 0.3, int(seconds * SAMPLE_RATE)).clip(-1, 1)
    at = np.arange(len(noise)) / SAMPLE_RATE
    made = np.stack([noise * (at % (speech + pause) < speech) for speech, pause in channels], 1)
    file = io.BytesIO()
    soundfile.write(file, made, SAMPLE_RATE, format="wav")
    return file.getvalue()


@functools.cache
def two() -> bytes:
    """Five minutes, of which one channel speaks nearly always and the other seldom."""
    return bursts(300.0, (8.0, 0.5), (3.0, 12.0))


def told(segments: list[Segment]) -> list[tuple[float, int | None, str]]:
    return [(segment.start, segment.channel, segment.text.split("/")[1]) for segment in segments]


def test_the_text_of_all_channels_is_in_order_of_time_and_says_who_spoke(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine()):
        job = service.wait(service.submit(two(), channels="separate"))
    segments = service.store.segments(job.id)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert {(segment.channel, segment.speaker) for segment in segments} == {(0, "channel 1"), (1, "channel 2")}
    assert all(left.start <= right.start for left, right in pairwise(segments))
    for channel in (0, 1):
        own = [segment for segment in segments if segment.channel == channel]
        assert all(left.end <= right.start for left, right in pairwise(own))
    assert (job.progress, job.channels) == (job.duration, 2)
    assert job.coverage is not None
    assert job.coverage["speech_seconds"] == pytest.approx(300 * 8 / 8.5 + 300 * 3 / 15, rel=0.1)
    assert job.coverage["text_seconds"] == pytest.approx(job.coverage["speech_seconds"])


def test_a_restart_goes_on_where_channels_are_heard_by_themselves(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "DRAIN_SECONDS", 0.0)
    whole = service.submit(two(), channels="separate")
    with running_worker(service, FakeEngine()):
        service.wait(whole)
    job = service.submit(two(), channels="separate")
    with running_worker(service, FakeEngine(most=8)) as running:
        service.until(lambda: len(service.store.segments(job)) > 4)
        running.worker.stop()
        service.until(lambda: service.job(job).status == "queued")
    before = told(service.store.segments(job))
    again = FakeEngine()
    with running_worker(service, again):
        done = service.wait(job)
    after = told(service.store.segments(job))
    assert after[: len(before)] == before
    assert after == told(service.store.segments(whole))
    assert done.coverage == service.job(whole).coverage
    assert len(again.received) < len(after)


def test_each_channel_has_its_own_language(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine()) as running:
        service.wait(service.submit(two(), channels="separate", language=None))
    heard = [chunk.options.language for chunk in running.engine.received]
    assert heard.count(None) == 2


def test_a_channel_that_is_heard_by_itself_counts_in_the_queue(service: ServiceFixture) -> None:
    service.store.create(NewJob("key", DecodeOptions(None, channels="separate"), estimate=60.0, channels=2))
    assert service.store.queue_stats().seconds == 120.0
    job = service.store.claim()
    assert job is not None
    service.store.set_channels(job.id, job.attempts, 1)
    assert service.store.queue_stats().seconds == 60.0


@pytest.mark.parametrize(("channels", "code"), [("separate", "unsupported_channels"), ("auto", None)])
def test_more_channels_than_can_be_heard_are_refused_or_mixed(
    channels: str, code: str | None, service: ServiceFixture
) -> None:
    with running_worker(service, FakeEngine()):
        job = service.wait(service.submit(bursts(6.0, *[(2.0, 0.5)] * 9), channels=channels))
    error = job.error
    assert (error and error.code, error and error.param) == (code, "channels" if code else None)
    if code is None:
        assert job.coverage is not None
        assert "9 channels were mixed" in job.coverage["warnings"][0]
