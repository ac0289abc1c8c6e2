"""Two "voices" that are tones, a network that tells them apart, and an engine that hears a word every half second."""

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from transcribe.engine import ChunkResult
from transcribe.speakers.network import SpeakerNetwork
from transcribe.types import SAMPLE_RATE, Segment, Word

from support.worker_fixture import FakeEngine

LOW, HIGH = 200, 3000  # Hz: the pitches of two "voices"


class PitchNetwork:
    """Tells voices apart by how often the sound crosses zero."""

    longest = 1.6

    def embed(self, audio: NDArray[np.float32], windows: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
        found = np.zeros((len(windows), 2), np.float32)
        for row, (start, end) in zip(found, windows, strict=True):
            part = audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            crossings = np.count_nonzero(np.diff(np.sign(part))) / max(len(part), 1)
            row[int(crossings > (LOW + HIGH) / SAMPLE_RATE)] = 1.0
        return found


PITCHES = cast(SpeakerNetwork, PitchNetwork())


@dataclass
class WordEngine(FakeEngine):
    """Says a word every half second, where words are wanted."""

    def step(self) -> list[ChunkResult]:
        wanted = bool(self.in_flight) and self.in_flight[0].options.words
        results = super().step()
        return [
            replace(found, segments=tuple(map(_with_words, found.segments))) if wanted else found for found in results
        ]


def _with_words(segment: Segment) -> Segment:
    times = np.arange(0.0, segment.end, 0.5).tolist()
    words = tuple(Word(f" w{n}", time, min(time + 0.5, segment.end), 0.9) for n, time in enumerate(times))
    return replace(segment, text="".join(word.word for word in words), words=words)


def turns(*pitches: int, seconds: float = 4.0, pause: float = 0.5, channels: int = 1) -> bytes:
    """A WAV in which tones of these pitches take turns, on each of the channels."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    silence = np.zeros(int(pause * SAMPLE_RATE))
    sound = np.concatenate([part for pitch in pitches for part in (0.3 * np.sin(2 * np.pi * pitch * time), silence)])
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(2)
        written.setframerate(SAMPLE_RATE)
        written.writeframes(np.repeat(sound * 32_767, channels).astype("<i2").tobytes())
    return file.getvalue()
