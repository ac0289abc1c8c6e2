"""Brings speech to the level at which the detector and the model know it, near and far speakers alike.

The detector misses a third of speech at -50 dB, and the model some of it. So the gain follows the loudest moment
around: quiet speech is raised, normal speech stays as it is, and a pause keeps the gain of the words beside it.
Noise is raised as well, and stays noise to the detector.
"""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from transcribe.types import SAMPLE_RATE

if TYPE_CHECKING:
    import torch

HOP = SAMPLE_RATE // 20  # samples for which a level is measured
AROUND = 8  # hops on either side whose level counts
SMOOTH = 4  # hops on either side over which the gain changes
REACH = AROUND + SMOOTH
TARGET = 10 ** (-20 / 20)  # root mean square of the loudest hop of normal speech
MOST = 10 ** (50 / 20)  # gain
BLOCK = 160 * HOP  # samples that are given at a time, whatever the blocks that come
RUMBLE = 100  # Hz; hum and offset below are not speech
SETTLING = 2048  # samples, after which nothing is left in the filter: -267 dB
SILENCE = 1e-9


@cache
def highpass() -> "torch.Tensor":
    """The response of a Butterworth filter of the fourth order from RUMBLE on, at each bin of 2 * SETTLING samples.

    By the bilinear transform (Oppenheim and Schafer, Discrete-Time Signal Processing, 7.1.2). scipy.signal has it
    too, at the price of 1.5 s of imports before the worker can start.
    """
    import torch  # with the model, after the environment is set

    s = 1j * np.tan(np.pi * np.arange(SETTLING + 1) / (2 * SETTLING))
    corner = np.tan(np.pi * RUMBLE / SAMPLE_RATE)
    first, second = (s**2 + 2 * np.cos(angle) * corner * s + corner**2 for angle in (np.pi / 8, 3 * np.pi / 8))
    return torch.from_numpy((s**4 / (first * second)).astype(np.complex64))


class Leveller:
    """Feed it blocks with `push` and end with `flush`; both give what is ready, in order."""

    def __init__(self) -> None:
        self._waiting: list[NDArray[np.float32]] = []
        self._before: NDArray[np.float32] | None = None  # SETTLING samples; None after silence
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
            clean = self._without_rumble(block)
        else:
            clean, self._before = block, None
        levels = np.sqrt(np.square(clean).reshape(-1, HOP).mean(1)) + SILENCE
        self._audio = np.concatenate([self._audio, block])
        self._clean = np.concatenate([self._clean, clean])
        self._levels = np.concatenate([self._levels, levels])

    def _without_rumble(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        if self._before is None:  # as if the sound had been there before: what it begins with is no click
            mirrored = block[:SETTLING][::-1]
            self._before = np.pad(mirrored, (SETTLING - len(mirrored), 0))
        whole = np.concatenate([self._before, block, np.zeros(-len(block) % SETTLING, np.float32)])
        windows = torch.from_numpy(whole).unfold(0, 2 * SETTLING, SETTLING)
        clean = torch.fft.irfft(torch.fft.rfft(windows) * highpass())[:, SETTLING:]
        self._before = np.concatenate([self._before, block])[-SETTLING:]
        given: NDArray[np.float32] = clean.reshape(-1)[: len(block)].numpy()
        return given

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
        if not before.any() and not ends.any():
            return audio
        gain = np.exp(np.linspace(before, ends, HOP, axis=1, dtype=np.float32)).reshape(-1)
        as_it_is = np.maximum(2.0 - gain, 0.0)  # all of it at a gain of 1, nothing from 2 on: there the rumble is out
        return np.clip(as_it_is * audio + (gain - as_it_is) * clean, -1.0, 1.0).astype(np.float32)
