"""Channels that are heard each by itself: cutting them side by side, and finding out whether that is worth while.

A telephone call has a speaker on each channel, and so has an interview with two microphones; music and films have the
same voice on both. `Survey` listens for speech that one channel has alone, that is, much louder than the others have
it. A copy, turned over or not, is as loud; a silent channel has none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from transcribe.audio.chunking import ENTER, FRAME, FRAME_SECONDS, AudioChunk, Chunker, Vad, VadOptions

WINDOW = 256  # frames that are judged at a time: 8.2 s
LOUDER = 15.0  # dB over every other channel: what leaks from one microphone or wire into the other is softer
AROUND = 6  # frames on either side in which another channel must be softer as well: a late copy is no other voice
UNLIKE = 0.5  # correlation of two channels' loudness below which each has a sound of its own, even at once
OWN_SECONDS = 2.0  # of speech that a channel has alone: then it has a voice of its own
LAG = 3  # samples: such a difference keeps the band of speech
SMALLEST_POWER = 1e-10  # softer is silence, as far as these comparisons go
LEVEL = 0.1  # root mean square of the loudest frame that the detector hears: speech as it is usually recorded


class ChannelChunker:
    """Cuts each of some channels by itself. Give it blocks [samples, channels] with `push` and end with `flush`; both
    give the chunks that are ready, in order of their beginnings: one is held until no other channel can have an earlier
    one, which takes a chunk's length at most."""

    def __init__(self, vad: Vad, channels: Sequence[int], options: VadOptions | None) -> None:
        self._chunkers = {channel: Chunker(vad.stream(), options=options) for channel in channels}
        self._held: list[AudioChunk] = []

    def push(self, block: NDArray[np.float32]) -> Iterator[AudioChunk]:
        """Takes the recording's next samples."""
        for channel, chunker in self._chunkers.items():
            ready = chunker.push(np.ascontiguousarray(block[:, channel]))
            self._held += (replace(chunk, channel=channel) for chunk in ready)
        yield from self._before(min(chunker.floor for chunker in self._chunkers.values()))

    def flush(self) -> Iterator[AudioChunk]:
        """What is left at the end of the recording."""
        for channel, chunker in self._chunkers.items():
            self._held += (replace(chunk, channel=channel) for chunk in chunker.flush())
        yield from self._before(np.inf)

    def _before(self, moment: float) -> Iterator[AudioChunk]:
        self._held.sort(key=lambda chunk: (chunk.start, chunk.channel))
        ready = [chunk for chunk in self._held if chunk.start <= moment]
        self._held = self._held[len(ready) :]
        yield from ready


class Survey:
    """Finds out which channels have a voice of their own. Give it blocks [samples, channels] with `push`, and end with
    `flush` unless it is `settled` before."""

    def __init__(self, vad: Vad, channels: int) -> None:
        self._vad = vad
        self._waiting = np.zeros((0, channels), np.float32)
        self._seconds = np.zeros(channels)  # of speech that each has alone

    @property
    def own(self) -> tuple[int, ...]:
        """The channels that have a voice of their own, as far as was heard."""
        return tuple(np.flatnonzero(self._seconds >= OWN_SECONDS).tolist())

    @property
    def settled(self) -> bool:
        """Every channel has one: nothing that comes can change that."""
        return len(self.own) == len(self._seconds)

    def push(self, block: NDArray[np.float32]) -> None:
        """Takes the recording's next samples."""
        self._waiting = np.concatenate([self._waiting, block])
        while len(self._waiting) >= WINDOW * FRAME:
            self._judge(self._waiting[: WINDOW * FRAME])
            self._waiting = self._waiting[WINDOW * FRAME :]

    def flush(self) -> None:
        """Judges what is left."""
        whole = len(self._waiting) // FRAME * FRAME
        if whole > 2 * AROUND * FRAME:
            self._judge(self._waiting[:whole])
        self._waiting = self._waiting[:0]

    def _judge(self, samples: NDArray[np.float32]) -> None:
        # A difference weighs speech against hum and offset, which channels may share.
        slopes = samples - np.concatenate([samples[:LAG], samples[:-LAG]])
        power = np.square(slopes).reshape(-1, FRAME, samples.shape[1]).mean(1) + SMALLEST_POWER
        levels = 10 * np.log10(power)
        for channel in range(samples.shape[1]):
            alone = _alone(levels, channel)
            if alone.any():
                spoken = self._speech(samples[:, channel]) > ENTER
                self._seconds[channel] += (alone & spoken).sum() * FRAME_SECONDS

    def _speech(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        frames = samples.reshape(-1, FRAME)
        loudest = float(np.sqrt(np.square(frames).mean(1).max()))
        return self._vad.stream().push(samples * np.float32(max(LEVEL / max(loudest, 1e-5), 1.0)))


def _alone(levels: NDArray[np.float64], channel: int) -> NDArray[np.bool_]:
    """The frames [frames] in which the channel is much louder than every other; levels [frames, channels] in dB."""
    alone = np.ones(len(levels), np.bool_)
    for other in range(levels.shape[1]):
        if other == channel:
            continue
        mine, its = levels[:, channel], levels[:, other]
        padded = np.pad(its, AROUND, mode="edge")
        around = sliding_window_view(padded, 2 * AROUND + 1)
        softer = mine - around.max(1) > LOUDER
        if _likeness(mine, around) < UNLIKE:
            softer |= mine - its > LOUDER
        alone &= softer
    return alone


def _likeness(mine: NDArray[np.float64], around: NDArray[np.float64]) -> float:
    """The correlation of two channels' loudness, at the shift at which it is highest."""
    centred = mine - mine.mean()
    others = around - around.mean(0)
    scale = np.sqrt(np.square(centred).sum() * np.square(others).sum(0))
    return float(np.divide(centred @ others, scale, out=np.zeros(len(scale)), where=scale > 0).max())
