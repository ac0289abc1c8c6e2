"""How many threads share a product on a processor: all that there are, fewer while other programs want the cores.

A token's products are so small that threads which share one wait for the slowest after each. Beside one busy process on
two cores that made the same recording take four times as long, and one thread less than twice as long.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from . import openmp

LOOK_SECONDS = 0.25
CROWDED = 0.15  # of the time, that threads of this process stood ready and had no core
FIRST_HOLD, LONGEST_HOLD = 0.25, 30.0  # seconds before all threads are tried again; doubled when that was too soon
TASKS = Path("/proc/self/task")


def waited() -> float:
    """Seconds that the threads of this process have stood ready without a core; Linux counts them for each (run_delay
    in schedstat, nanoseconds). Zero where it does not."""
    total = 0
    for task in TASKS.glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue  # a thread that ended meanwhile
    return total / 1e9


class Crowding:
    """Sets the number of torch's threads for the thread that calls it."""

    def __init__(
        self,
        waited: Callable[[], float] = waited,
        now: Callable[[], float] = time.monotonic,
        threads: int = 0,
    ) -> None:
        """`threads` is how many there are; 0 for as many as torch takes."""
        self._waited, self._now = waited, now
        self._all = self.threads = threads or torch.get_num_threads()
        self._hold = FIRST_HOLD
        self._seen, self._at = waited(), now()
        self._changed = self._at

    def look(self) -> None:
        """Call it often: four times a second it looks whether other programs want the cores, and acts on it."""
        now = self._now()
        if self._all == 1 or now < self._at + LOOK_SECONDS:
            return
        seen = self._waited()
        crowded = seen - self._seen > CROWDED * (now - self._at)
        self._seen, self._at = seen, now
        if crowded and self.threads > 1:
            soon = self.threads == self._all and now < self._changed + 2 * self._hold
            self._hold = min(2 * self._hold, LONGEST_HOLD) if soon else FIRST_HOLD
            self._set(self.threads - 1)
        elif not crowded and self.threads < self._all and now > self._changed + self._hold:
            self._set(self._all)

    def _set(self, threads: int) -> None:
        self.threads, self._changed = threads, self._at
        openmp.limit(threads)
