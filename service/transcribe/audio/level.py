"""Brings speech to the level at which the detector and the model know it, near and far speakers alike.

The detector misses a third of speech at -50 dB, and the model some of it. So the gain follows the loudest moment
around: quiet speech is raised, normal speech stays as it is, and a pause keeps the gain of the words beside it.
Noise is raised as well, and stays noise to the detector.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from transcribe.audio.highpass import STEP, Highpass

HOP = STEP  # samples for which a level is measured: 50 ms
AROUND = 8  # hops on either side whose level counts
SMOOTH = 4  # hops on either side over which the gain changes
REACH = AROUND + SMOOTH
TARGET = 10 ** (-20 / 20)  # root mean square of the loudest hop of normal speech
MOST = 10 ** (50 / 20)  # gain
BLOCK = 160 * HOP  # samples that are given at a time, whatever the blocks that come
SILENCE = 1e-9
STRETCH = 40  # samples; the gain is computed for each stretch of a hop and each sample of a stretch


class Leveller:
    """Feed it blocks with `push` and end with `flush`; both give what is ready, in order."""

    def __init__(self) -> None:
        self._waiting: list[NDArray[np.float32]] = []
        self._highpass = Highpass()
        self._audio = self._clean = np.zeros(0, np.float32)
        self._levels = np.full(REACH, SILENCE)  # of the hops from REACH before _audio's first one on
        self._last = 0.0  # logarithm of the gain at _audio's beginning

    def push(self, block: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Takes the recording's next samples."""
        self._waiting.append(block)
        if sum(map(len, self._waiting)) >= BLOCK:
            whole = np.concatenate(self._waiting)
            usable = len(whole) // BLOCK * BLOCK
            self._waiting = [whole[usable:]]
            for at in range(0, usable, BLOCK):
                self._take(whole[at : at + BLOCK])
                yield self._given(len(self._levels) - 2 * REACH)

    def flush(self) -> Iterator[NDArray[np.float32]]:
        """What is left at the end of the recording."""
        rest = np.concatenate([*self._waiting, np.zeros(0, np.float32)])
        length = len(self._audio) + len(rest)
        if len(rest):
            self._take(np.pad(rest, (0, -len(rest) % HOP)))
        self._levels = np.concatenate([self._levels, np.full(REACH, SILENCE)])
        if length:
            yield self._given(len(self._levels) - 2 * REACH)[:length]

    def _take(self, block: NDArray[np.float32]) -> None:
        if block.any():
            clean = self._highpass(block)
        else:
            clean = block
            self._highpass.forget()
        hops = clean.reshape(-1, HOP)
        levels = np.sqrt(np.einsum("hs,hs->h", hops, hops) / np.float32(HOP)) + SILENCE
        self._audio = np.concatenate([self._audio, block])
        self._clean = np.concatenate([self._clean, clean])
        self._levels = np.concatenate([self._levels, levels])

    def _given(self, hops: int) -> NDArray[np.float32]:
        if hops <= 0:
            return self._audio[:0]
        loudest = sliding_window_view(self._levels, 2 * AROUND + 1).max(1)
        needed = np.log(np.clip(TARGET / loudest, 1.0, MOST))
        gains = sliding_window_view(needed, 2 * SMOOTH + 1)
        ends = (gains.min(1) + gains.mean(1))[:hops] / 2  # never far above what the loudest hop bears
        samples = hops * HOP
        audio, clean = self._audio[:samples], self._clean[:samples]
        before = np.concatenate([[self._last], ends[:-1]])
        self._audio, self._clean = self._audio[samples:], self._clean[samples:]
        self._levels, self._last = self._levels[hops:], float(ends[-1])
        raised = np.flatnonzero((before != 0.0) | (ends != 0.0))
        if not len(raised):
            return audio
        if len(raised) == hops:
            return _raised(audio.reshape(-1, HOP), clean.reshape(-1, HOP), before, ends).reshape(-1)
        given = audio.reshape(-1, HOP).copy()
        given[raised] = _raised(given[raised], clean.reshape(-1, HOP)[raised], before[raised], ends[raised])
        return given.reshape(-1)


def _raised(
    audio: NDArray[np.float32], clean: NDArray[np.float32], before: NDArray[np.float64], ends: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Hops [hops, HOP], with and without rumble, at a gain whose logarithm goes from `before` to `ends` [hops]."""
    slopes = (ends - before)[:, None] / (HOP - 1)
    coarse = np.exp(before[:, None] + slopes * np.arange(0, HOP, STRETCH)).astype(np.float32)
    fine = np.exp(slopes * np.arange(STRETCH)).astype(np.float32)
    gain = (coarse[:, :, None] * fine[:, None]).reshape(-1, HOP)
    as_it_is = np.float32(2.0) - gain  # all of it at a gain of 1, nothing from 2 on: there the rumble is out
    np.maximum(as_it_is, np.float32(0.0), out=as_it_is)
    as_it_is *= audio - clean
    gain *= clean
    gain += as_it_is
    return np.clip(gain, np.float32(-1.0), np.float32(1.0), out=gain)
