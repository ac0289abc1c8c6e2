"""Where decoded frames lie in the recording, by the timestamps that its container gives them.

A late start and a gap (a recorder's pause, lost packets) become silence, so that times in the text are the file's.
Where samples run ahead of the timestamps (a sound card's clock, clips that overlap) a little is taken out of each
block, where it is quietest. A clock that jumps back (clips joined end to end) or further ahead than a recording may
last goes on where it was.
"""

from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from transcribe.types import SAMPLE_RATE

TOLERANCE = int(0.05 * SAMPLE_RATE)  # containers round timestamps, and recorders' clocks jitter
RESTART = SAMPLE_RATE  # sound that lies further ahead of its timestamp has a new clock; less is an overlap
PACE = SAMPLE_RATE // 200  # two frames in a row that are further than this from the ones before: another pace begins
ROUNDED = 2  # samples: a frame that is nearer than this to the one before ends it
FEW = 20  # where there is no pause, a block loses at most this part of it: words must stay
PAUSE = 0.01  # of a block's mean power: what is softer is a pause
FADE = 80  # samples in which one side of a cut becomes the other, so that nothing clicks


class Clock(Enum):
    """Where timestamps come from. All but the first kind keep another pace than sound where the sample rate changes."""

    STAMPED = auto()  # the container
    PACED = auto()  # the container, which counts samples whatever their rate
    COUNTED = auto()  # ffmpeg, which adds up the frames: nothing can be missing between them


class Timeline:
    """Feed it each frame's timestamp and length, in samples; 0 is the container's start."""

    def __init__(self, longest_seconds: float, clock: Clock = Clock.STAMPED) -> None:
        self._longest = int(longest_seconds * SAMPLE_RATE)
        self._clock = clock
        self._end = 0  # of the frame before, by its timestamp
        self._step = 0  # from there to this frame's timestamp
        self._astray = False  # the clock keeps another pace than the samples
        self._last: int | None = None  # the timestamp of the frame before
        self._offset = 0  # what is added to a timestamp
        self.position = 0  # samples placed so far
        self.restarts = 0  # how often the clock jumped

    def place(self, timestamp: int, samples: int) -> tuple[int, int]:
        """Places a frame; returns how many samples of silence come before it, and by how many it comes too late. Those
        that are taken out for that must be given to `taken`."""
        gap = timestamp + self._offset - self.position
        stands = self._last is not None and timestamp <= self._last  # as ffmpeg has it while a clock lies behind
        restarts = gap and not stands and (gap < -RESTART or timestamp + self._offset + samples > self._longest)
        if self._strays(timestamp, samples) or restarts:
            self.restarts += self._last is not None
            self._offset, gap = self.position - timestamp, 0
        silence = gap if gap > TOLERANCE else 0
        self.position += silence + samples
        self._last = timestamp
        return silence, -gap if gap < -TOLERANCE and not stands else 0

    def _strays(self, timestamp: int, samples: int) -> bool:
        """Whether the clock goes on at another pace than the samples, for want of a better one."""
        before, self._step = self._step, timestamp - self._end
        self._end = timestamp + samples
        if self._clock is Clock.STAMPED:
            return False
        begins = before * self._step > 0 and min(abs(before), abs(self._step)) > PACE
        self._astray = begins or (self._astray and abs(self._step) > ROUNDED)
        return self._astray or (self._clock is Clock.COUNTED and self._step >= RESTART)

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
