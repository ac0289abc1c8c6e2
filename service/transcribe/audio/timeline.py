"""Where decoded frames lie in the recording, by the timestamps that its container gives them.

A late start and a gap (a recorder's pause, lost packets) become silence, so that times in the text are the file's.
Where samples run ahead of the timestamps (a sound card's clock, clips that overlap) a little is taken out of each
block, where it is quietest. A clock that jumps back (clips joined end to end) or further ahead than a recording may
last goes on where it was.
"""

import numpy as np
from numpy.typing import NDArray

from transcribe.types import SAMPLE_RATE

TOLERANCE = int(0.05 * SAMPLE_RATE)  # containers round timestamps, and recorders' clocks jitter
RESTART = SAMPLE_RATE  # sound that lies further ahead of its timestamp has a new clock; less is an overlap
FEW = 20  # where there is no pause, a block loses at most this part of it: words must stay
PAUSE = 0.01  # of a block's mean power: what is softer is a pause
FADE = 80  # samples in which one side of a cut becomes the other, so that nothing clicks


class Timeline:
    """Feed it each frame's timestamp and length, in samples; 0 is the container's start."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest = int(longest_seconds * SAMPLE_RATE)
        self._last: int | None = None  # the timestamp of the frame before
        self._offset = 0  # what is added to a timestamp
        self.position = 0  # samples placed so far
        self.restarts = 0  # how often the clock jumped

    def place(self, timestamp: int, samples: int) -> tuple[int, int]:
        """Places a frame; returns how many samples of silence come before it, and by how many it comes too late. Those
        that are taken out for that must be given to `taken`."""
        gap = timestamp + self._offset - self.position
        stands = self._last is not None and timestamp <= self._last  # as ffmpeg has it while a clock lies behind
        if gap and not stands and (gap < -RESTART or timestamp + self._offset + samples > self._longest):
            self.restarts += self._last is not None
            self._offset, gap = self.position - timestamp, 0
        silence = gap if gap > TOLERANCE else 0
        self.position += silence + samples
        self._last = timestamp
        return silence, -gap if gap < -TOLERANCE and not stands else 0

    def taken(self, samples: int) -> None:
        """So many of the last frame were taken out."""
        self.position -= samples


def caught_up(sound: NDArray[np.float32], late: int) -> NDArray[np.float32]:
    """Samples [frames] or [frames, channels] that come `late` frames too late without some of them: all that many where
    so long a pause is in them, else a few, the quietest in a row."""
    if not late:
        return sound
    power = np.square(sound, dtype=np.float64).reshape(len(sound), -1).sum(1)
    sums = np.cumsum(np.pad(power, (1, 0)))
    for count in (late, min(late, len(sound) // FEW)):
        if not 0 < count < len(sound):
            continue
        windows = sums[count:] - sums[:-count]
        at = int(windows.argmin())
        if count <= len(sound) // FEW or windows[at] / count <= PAUSE * sums[-1] / len(sound):
            return _without(sound, at, count)
    return sound


def _without(sound: NDArray[np.float32], at: int, count: int) -> NDArray[np.float32]:
    kept = np.concatenate([sound[:at], sound[at + count :]])
    fade = min(FADE, count, len(kept) - at)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32).reshape(-1, *(1,) * (sound.ndim - 1))
    kept[at : at + fade] = sound[at : at + fade] * (1 - ramp) + kept[at : at + fade] * ramp
    return kept
