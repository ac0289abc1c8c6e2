"""Where decoded frames lie in the recording, by the timestamps that its container gives them.

A late start and a gap (a recorder's pause, lost packets) become silence, so that times in the text are the file's. A
clock that jumps back (clips joined end to end) or further ahead than a recording may last goes on where it was.
"""

from transcribe.types import SAMPLE_RATE

TOLERANCE = int(0.05 * SAMPLE_RATE)  # containers round timestamps, and recorders' clocks jitter
RESTART = SAMPLE_RATE  # a jump back by more than this is a new clock; by less, it is jitter


class Timeline:
    """Feed it each frame's timestamp and length, in samples; 0 is the container's start."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest = int(longest_seconds * SAMPLE_RATE)
        self._expected: int | None = None  # the timestamp that would follow without a gap
        self._offset = 0  # what is added to a timestamp
        self.position = 0  # samples placed so far
        self.restarts = 0  # how often the clock jumped

    def silence_before(self, timestamp: int, samples: int) -> int:
        """Places a frame; returns how many samples of silence come before it."""
        expected = self._expected
        jump = timestamp - expected if expected is not None else 0
        if jump < -RESTART or timestamp + self._offset - self.position > self._longest:
            self._offset = self.position - timestamp
            self.restarts += expected is not None
        gap = timestamp + self._offset - self.position
        silence = gap if gap > TOLERANCE else 0
        self.position += silence + samples
        self._expected = timestamp + samples
        return silence
