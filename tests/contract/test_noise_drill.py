"""Drill: minutes of sound in which nobody can be understood give no word. `DRILLS=long` makes it an hour of each."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from localcloud.hub.models import model_dir
from numpy.typing import NDArray
from support.decoding import DecodeLimits
from support.recordings import hiss, hum, loud, music
from transcribe.audio.recording import Recording
from transcribe.audio.vad import Vad
from transcribe.cli import transcribe
from transcribe.engine import Engine
from transcribe.types import SAMPLE_RATE, DecodeOptions

pytestmark = [pytest.mark.drill, pytest.mark.model]
AUDIO = Path(__file__).resolve().parents[1] / "audio"
LONG = os.environ.get("DRILLS") == "long"
SECONDS = 3600 if LONG else 30
PIECE = 30 * SAMPLE_RATE
VOICES = 16
Samples = NDArray[np.float32]


def babble(piece: Samples, chance: np.random.Generator) -> NDArray[np.float64]:
    """Many people at once, none nearer than the others: clips that begin anywhere, each at a pace of its own."""
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(AUDIO.glob("*.flac"))]
    found = np.zeros(len(piece))
    for _ in range(VOICES):
        clip = clips[chance.integers(len(clips))]
        pace = chance.uniform(0.8, 1.25)
        voice = np.interp(np.arange(0, len(clip) - 1, pace), np.arange(len(clip)), clip)
        voice = np.tile(voice / np.sqrt(np.square(voice).mean()), len(piece) // len(voice) + 2)
        at = int(chance.integers(len(voice) - len(piece)))
        found += voice[at : at + len(piece)]
    return found


SOUNDS: dict[str, Callable[[Samples, np.random.Generator], NDArray[np.floating]]] = {
    "silence": lambda piece, _: piece,
    "hiss": lambda piece, _: loud(-35)(hiss(piece.astype(np.float64))),
    "hum": lambda piece, _: loud(-30)(hum(piece.astype(np.float64))),
    "music": lambda piece, _: loud(-25)(music(piece.astype(np.float64))),
    "babble": lambda piece, chance: loud(-25)(babble(piece, chance)),
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(model_dir("whisper-base"), device="cpu", dtype="float32", max_chunks=8, cache_dir=None)


def pieces(name: str) -> Iterator[Samples]:
    chance = np.random.default_rng(11)
    for _ in range(SECONDS * SAMPLE_RATE // PIECE):
        yield SOUNDS[name](np.zeros(PIECE, np.float32), chance).astype(np.float32)


SLOW = ("babble", "sv")  # which is decoded again and again, for most of a minute
CASES = [(name, language) for language in ("en", "sv", None) for name in SOUNDS if LONG or (name, language) != SLOW]


@pytest.mark.parametrize(("name", "language"), CASES)
def test_no_word_is_made_of_it(name: str, language: str | None, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="WAV", subtype="PCM_16") as file:
        for piece in pieces(name):
            file.write(piece)
    with Recording(path, DecodeLimits(), Vad.load()) as recording:
        result = transcribe(engine, recording, DecodeOptions(language=language))
    print(f"{name}, {language}: {SECONDS} s, {result.coverage}")
    assert [segment.text for segment in result.transcript.segments] == []
