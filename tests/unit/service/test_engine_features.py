"""Log-mel spectrograms are those of transformers' extractor, and their bands librosa's."""

import numpy as np
import pytest
import transformers
from librosa.filters import mel as from_librosa
from numpy.typing import NDArray
from transcribe.engine.model.features import WINDOW, WINDOW_FRAMES, LogMel, filters, frames_for

RATE = 16_000


def noise(seconds: float) -> NDArray[np.float32]:
    return np.random.default_rng(4).normal(0.0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("bands", [80, 128])
def test_filters_are_librosas(bands: int) -> None:
    expected = from_librosa(sr=RATE, n_fft=WINDOW, n_mels=bands)
    assert np.abs(filters(bands) - expected).max() < 1e-7


@pytest.mark.parametrize("seconds", [0.0001, 0.01, 0.5, 7.123, 29.99, 30.0, 31.0])
def test_equals_transformers(seconds: float) -> None:
    audio = noise(seconds)
    expected = transformers.WhisperFeatureExtractor(feature_size=80)(audio, sampling_rate=RATE, return_tensors="np")
    np.testing.assert_allclose(LogMel(80, "cpu")(audio).numpy(), expected.input_features[0], atol=1e-5)


def test_a_shorter_window_is_the_beginning_of_the_whole() -> None:
    audio, log_mel = noise(3.0), LogMel(80, "cpu")
    frames = frames_for(len(audio))
    assert frames < WINDOW_FRAMES
    np.testing.assert_allclose(log_mel(audio, frames), log_mel(audio)[:, :frames], atol=1e-6)


@pytest.mark.parametrize("frames", [2000, WINDOW_FRAMES])
def test_several_at_once_are_as_each_alone(frames: int) -> None:
    log_mel, sounds = LogMel(80, "cpu"), [noise(seconds) for seconds in (0.0001, 3.1, frames / 100 - 2, frames / 100)]
    found = log_mel.together(sounds, frames)
    for one, sound in zip(found, sounds, strict=True):
        np.testing.assert_allclose(one.numpy(), log_mel(sound, frames).numpy(), atol=1e-5)


@pytest.mark.parametrize("samples", [0, 1])
def test_silence_and_nothing_have_a_value(samples: int) -> None:
    assert np.isfinite(LogMel(80, "cpu")(np.zeros(samples, np.float32)).numpy()).all()
