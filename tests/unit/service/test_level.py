"""Quiet speech is raised, without the rumble below it, however the blocks come."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import transcribe
from numpy.typing import NDArray
from transcribe.audio.highpass import STEP, Highpass
from transcribe.audio.level import Leveller
from transcribe.types import SAMPLE_RATE

SERVICE = Path(transcribe.__file__).parent.parent
SECONDS = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE


def levelled(audio: NDArray[np.float32], block: int = SAMPLE_RATE) -> NDArray[np.float32]:
    leveller = Leveller()
    given = [part for at in range(0, len(audio), block) for part in leveller.push(audio[at : at + block])]
    return np.concatenate([*given, *leveller.flush()])


def tone(hertz: float, level: float) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * hertz * SECONDS)).astype(np.float32)


def test_the_filter_is_that_of_butterworth() -> None:
    sections = scipy.signal.butter(4, 100, "highpass", fs=SAMPLE_RATE, output="sos")
    sound = np.random.default_rng(1).normal(0.9, 0.02, 40 * STEP).astype(np.float32)
    sound[: 4 * STEP] = 0.0
    found = Highpass()(sound)
    np.testing.assert_allclose(found, scipy.signal.sosfilt(sections, sound), atol=1e-6)


def test_the_filter_goes_on_where_it_was() -> None:
    sound = np.random.default_rng(2).normal(0.3, 0.1, 40 * STEP).astype(np.float32)
    parts = Highpass()
    found = [parts(sound[first:end]) for first, end in ((0, 3 * STEP), (3 * STEP, 4 * STEP), (4 * STEP, 40 * STEP))]
    np.testing.assert_allclose(np.concatenate(found), Highpass()(sound), atol=1e-6)


@pytest.mark.parametrize("length", [1, 3, 40])
def test_an_offset_from_the_beginning_on_is_no_click(length: int) -> None:
    assert np.abs(Highpass()(np.full(length * STEP, 0.5, np.float32))).max() < 0.05


@pytest.mark.parametrize("block", [1, 1_700, 128_000, 1_000_000])
def test_the_size_of_the_blocks_makes_no_difference(block: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.003, len(SECONDS) if block > 1 else 3_000).astype(np.float32)
    assert np.array_equal(levelled(noise, block), levelled(noise))


def test_speech_as_loud_as_usual_stays_as_it_is() -> None:
    loud = tone(300, 0.5)
    assert np.array_equal(levelled(loud), loud)


def test_what_is_quiet_is_raised_and_its_hum_and_offset_are_not() -> None:
    raised = levelled(tone(300, 0.001) + tone(20, 0.001) + np.float32(0.001))
    spectrum = np.abs(np.fft.rfft(raised)) / len(raised) * 2
    hertz = np.fft.rfftfreq(len(raised), 1 / SAMPLE_RATE)
    assert spectrum[hertz == 300] == pytest.approx(np.sqrt(2) / 10, rel=0.02)
    assert spectrum[hertz < 50].max() < 0.001


def test_the_program_loads_what_is_heavy_only_when_it_is_needed() -> None:
    """torch takes two seconds and wants the environment set first; scipy.signal would cost 1.5 s of every start."""
    code = "import sys, transcribe.worker.main; print({'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SERVICE, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
