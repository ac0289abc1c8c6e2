"""Several languages in one recording, from the worker's chunks to its segments."""

import io
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support.worker_fixture import FakeEngine, ServiceFixture, running_worker
from transcribe.types import SAMPLE_RATE, Segment
from transcribe.worker import loop
from transcribe.worker.pieces import likeliest

BURST, PAUSE = 3.5, 0.5  # seconds of a sentence, and between two


def spoken(languages: str) -> bytes:
    """A WAV with a sentence for each letter: noise that is dull for Swedish (s), and sharp for English (e)."""
    noise = np.random.default_rng(1).normal(0.0, 0.3, int(BURST * SAMPLE_RATE))
    dull = 4 * np.convolve(noise, np.ones(16) / 16, "same")
    parts = [part for one in languages for part in ((dull, noise)[one == "e"], np.zeros(int(PAUSE * SAMPLE_RATE)))]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts).clip(-1, 1), SAMPLE_RATE, format="wav")
    return file.getvalue()


def heard(audio: NDArray[np.float32]) -> dict[str, float]:
    """As an engine hears it: English is likelier beforehand."""
    sharp = float((np.diff(np.sign(audio[np.abs(audio) > 0.001])) != 0).mean()) > 0.3
    return {"en": -0.001, "sv": -9.0} if sharp else {"en": -0.05, "sv": -3.0}


def told(segments: list[Segment]) -> list[tuple[float, str | None, str]]:
    return [(segment.start, segment.language, segment.text.split("/")[1]) for segment in segments]


TURNS = "eeessseeeeeesssssssseeeeeseeeessssss"
ASKED: dict[str, Any] = {"language": None, "candidates": ("sv", "en"), "multilingual": True}


@pytest.mark.parametrize("channels", ["mix", "separate"])
def test_each_part_is_decoded_in_its_own_language(channels: str, service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine(heard=heard)) as running:
        job = service.wait(service.submit(spoken(TURNS), channels=channels, **ASKED))
    segments = service.store.segments(job.id)
    assert all(left.end <= right.start for left, right in pairwise(segments))
    kept = pairwise(TURNS.replace("ese", "eee"))  # a single sentence that may be in another language changes nothing
    expected = [at * (BURST + PAUSE) for at, (one, two) in enumerate(kept, start=1) if one != two]
    changes = [two.start for one, two in pairwise(segments) if one.language != two.language]
    assert changes == pytest.approx(expected, abs=1.0)
    assert {segment.language for segment in segments} == {"en", "sv"}
    decoded = [chunk for chunk in running.engine.received if not chunk.listen]
    assert [chunk.options.language for chunk in decoded] == [segment.language for segment in segments]
    assert job.language == "en"  # spoken for a little longer
    assert job.coverage is not None
    assert job.coverage["text_seconds"] == pytest.approx(job.coverage["speech_seconds"])


def test_a_restart_goes_on_in_the_language_that_was_spoken(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "DRAIN_SECONDS", 0.0)
    recording = spoken(TURNS * 3)
    whole = service.submit(recording, **ASKED)
    with running_worker(service, FakeEngine(heard=heard)):
        service.wait(whole)
    job = service.submit(recording, **ASKED)
    with running_worker(service, FakeEngine(heard=heard, delay=0.02)) as running:
        service.until(lambda: len(service.store.segments(job)) > 4)
        running.worker.stop()
        service.until(lambda: service.job(job).status == "queued")
    with running_worker(service, FakeEngine(heard=heard)):
        done = service.wait(job)
    assert told(service.store.segments(job)) == told(service.store.segments(whole))
    assert done.language == service.job(whole).language


def test_without_it_no_language_is_looked_for_but_the_first(service: ServiceFixture) -> None:
    with running_worker(service, FakeEngine(heard=heard)) as running:
        job = service.wait(service.submit(spoken("eeessseee"), language=None, candidates=("sv", "en")))
    assert not any(chunk.listen for chunk in running.engine.received)
    assert {segment.language for segment in service.store.segments(job.id)} == {None}


@pytest.mark.parametrize(
    ("margins", "before", "expected"),
    [
        ([-5, -5, 5, 5], {}, "eess"),
        ([-5, -5, 2, -5], {}, "eeee"),  # one doubt
        ([-5, -5, 9, -5], {}, "eese"),  # one sentence, surely
        ([-5, 2, 2, 2], {}, "esss"),  # doubts that agree
        ([1, 5], {}, "ss"),
        ([1, -1], {"sv": 0.0, "en": -1.5}, "ss"),  # goes on as it was
        ([1, -9], {"en": 0.0, "sv": -1.5}, "ee"),
    ],
)
def test_a_change_needs_evidence(margins: list[float], before: dict[str, float], expected: str) -> None:
    chances = [{"en": 0.0, "sv": float(margin)} for margin in margins]
    languages, after = likeliest(chances, before)
    assert "".join(language[0] for language in languages) == expected
    assert max(after.values()) == 0.0
    assert [key for key, _ in groupby(languages)][-1] == max(after, key=after.__getitem__)
