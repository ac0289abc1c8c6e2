"""The threads that torch works with, those of GCC's libgomp: how many share the work of the engine.

A token's products are so small that threads which share one wait for the slowest after each. Beside one busy process on
two cores that made the same recording take four times as long, and one thread less than twice as long. So the engine
takes fewer threads while other programs want the cores. (Measured on two cores; with more, as many threads are dropped
as were waiting for a core.)
"""

import ctypes
import functools
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

LOOK_SECONDS = 0.25
CROWDED = 0.15  # threads that stood ready and had no core, on average
LOOKS = 2  # so many in a row must find it: clips that arrive together are decoded in a moment
FIRST_HOLD, LONGEST_HOLD = 0.25, 30.0  # seconds before all threads are tried again; doubled when that was too soon
TASKS = Path("/proc/self/task")


def limit(threads: int) -> None:
    """Sets how many threads share the work of the calling thread; other threads keep theirs.

    torch.set_num_threads also changes the number of new threads and of MKL's products in every thread. Each thread has
    helpers of its own, and once there are more of them than cores, libgomp lets all sleep between two loops, instead of
    spinning: a token's small loops then take 1.5 times as long.
    """
    torch.get_num_threads()  # torch sets the number itself when a thread first asks for it, and must not do so later
    gomp = library()
    if gomp is None:
        torch.set_num_threads(threads)
        return
    gomp.omp_set_num_threads(threads)
    if (products := _mkl()) is not None:
        products(threads)


@functools.cache
def library() -> ctypes.CDLL | None:
    """torch's own OpenMP; None where it has none, as on a Mac."""
    try:
        return ctypes.CDLL(file())
    except OSError:
        return None


@functools.cache
def _mkl() -> Callable[[int], int] | None:
    """What limits the matrix products of the calling thread, where torch was built with MKL."""
    try:
        torch_itself = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        limit_products: Callable[[int], int] = torch_itself.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
    return limit_products


def file() -> str:
    """The file of the OpenMP that torch brought and loaded; there may be others. Raises OSError when there is none."""
    home = re.escape(str(Path(torch.__file__).resolve().parent))  # the kernel tells of files, not of links
    found = re.search(rf"{home}(?:/lib|\.libs)/libgomp.*", Path("/proc/self/maps").read_text())
    if found is None:
        raise OSError("torch has no OpenMP of its own here")
    return found[0]


def waited() -> dict[int, float]:
    """Seconds that the calling thread and each of its helpers have waited for a core, by thread id, by run_delay in
    Linux's schedstat. Empty elsewhere."""
    others = {thread.native_id for thread in threading.enumerate()} - {threading.get_native_id()}
    found = {}
    for task in TASKS.glob("*"):
        if int(task.name) in others:  # Python's own: they decode recordings, and wait for each other
            continue
        try:
            found[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            continue  # the thread ended meanwhile
    return found


def longer(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Seconds that the threads in both have waited in between."""
    return sum(after[thread] - before[thread] for thread in before.keys() & after.keys())


class ThreadThrottle:
    """Lowers the number of torch's threads while other programs want the cores, for the thread that calls it."""

    def __init__(
        self,
        waited: Callable[[], dict[int, float]] = waited,
        now: Callable[[], float] = time.monotonic,
        threads: int = 0,
    ) -> None:
        """`threads` is how many there are; 0 for as many as torch takes."""
        self._waited, self._now = waited, now
        self._all = self.threads = threads or torch.get_num_threads()
        self._hold = FIRST_HOLD
        self._crowded = 0  # looks in a row that found it so
        self._seen, self._at = waited(), now()
        self._changed = self._at

    def update(self) -> None:
        """Call it often: four times a second it checks how long the threads waited for a core, and acts on it."""
        now = self._now()
        if self._all == 1 or now < self._at + LOOK_SECONDS:
            return
        seen = self._waited()
        lacking = longer(self._seen, seen) / (now - self._at)  # how many threads stood without a core, on average
        crowded = lacking > CROWDED
        self._seen, self._at = seen, now
        self._crowded = self._crowded + 1 if crowded else 0
        if self._crowded >= LOOKS and self.threads > 1:
            soon = self.threads == self._all and now < self._changed + 2 * self._hold + LOOKS * LOOK_SECONDS
            self._hold = min(2 * self._hold, LONGEST_HOLD) if soon else FIRST_HOLD
            self._set(max(1, self.threads - max(1, round(lacking))))
        elif not crowded and self.threads < self._all and now > self._changed + self._hold:
            self._set(self._all)

    def _set(self, threads: int) -> None:
        self.threads, self._changed, self._crowded = threads, self._at, 0
        limit(threads)
