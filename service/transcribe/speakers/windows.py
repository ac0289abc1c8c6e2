"""The voices of a recording: which windows of it the network hears, and what it makes of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transcribe.audio.chunking import AudioChunk
from transcribe.speakers.network import FRAMES_PER_SECOND, SpeakerNetwork

JOINED_SECONDS = 0.1  # a shorter silence parts nothing: speakers change at longer ones
HOP_SECONDS = 0.8  # from window to window, at most: half as many windows as half of that, and as many errors
FRAME_SECONDS = 1 / FRAMES_PER_SECOND
Span = tuple[float, float]  # start and end in seconds


@dataclass(frozen=True)
class Voices:
    """What was heard of a recording, in its order: `spans` of unbroken speech, `windows` [n, 2] within them (start and
    end in seconds), and for each window its `embeddings` [n, d] of length 1."""

    spans: tuple[Span, ...]
    windows: NDArray[np.float64]
    embeddings: NDArray[np.float32]

    @property
    def seconds(self) -> NDArray[np.float64]:
        """The length of each window."""
        found: NDArray[np.float64] = self.windows[:, 1] - self.windows[:, 0]
        return found

    @classmethod
    def joined(cls, parts: Sequence["Voices"]) -> "Voices":
        """Those of consecutive parts of a recording as one."""
        spans = tuple(span for part in parts for span in part.spans)
        windows = np.concatenate([np.zeros((0, 2)), *(part.windows for part in parts)])
        heard = [part.embeddings for part in parts if len(part.embeddings)]
        return cls(spans, windows, np.concatenate(heard) if heard else np.zeros((0, 1), np.float32))


def hear(network: SpeakerNetwork, chunk: AudioChunk) -> Voices:
    """The voices of a chunk."""
    spans = unbroken(chunk.speech)
    windows = [window for span in spans for window in placed(span, network.longest)]
    embeddings = network.embed(chunk.audio, [(start - chunk.start, end - chunk.start) for start, end in windows])
    return Voices(tuple(spans), np.array(windows, np.float64).reshape(-1, 2), embeddings)


def unbroken(speech: Iterable[Span]) -> list[Span]:
    """The spans of speech, those that next to nothing parts as one."""
    spans: list[Span] = []
    for start, end in speech:
        if spans and start - spans[-1][1] < JOINED_SECONDS:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    return spans


def placed(span: Span, longest: float) -> list[Span]:
    """Windows of the `longest` length that cover the span evenly; a short span is one window."""
    start, end = span
    spare = end - start - longest
    if spare < FRAME_SECONDS:
        return [span]
    steps = math.ceil(spare / HOP_SECONDS)
    return [(start + spare * n / steps, start + spare * n / steps + longest) for n in range(steps + 1)]
