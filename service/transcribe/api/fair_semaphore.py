"""Limits how many requests run at once, and shares the slots fairly between API keys."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class FairSemaphore:
    """`total` slots. A key may take one while it holds fewer than are free, so a lone key gets half of them, two keys a
    third each, and a new key always finds one (Choudhury and Hahne, "Dynamic queue length thresholds", 1998)."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._held: Counter[str] = Counter()
        self._freed = threading.Condition()

    def acquire(self, key_id: str, seconds: float = 0.0) -> bool:
        """Takes a slot if one is available within so many seconds; returns whether it did. '' (no keys configured) may
        take all of them."""
        with self._freed:
            taken = self._freed.wait_for(lambda: self._available(key_id), seconds)
            if taken:
                self._held[key_id] += 1
            return taken

    def _available(self, key_id: str) -> bool:
        free = self.total - self._held.total()
        return free > 0 and not (key_id and self._held[key_id] >= free)

    def release(self, key_id: str) -> None:
        """Frees a slot that `acquire` took."""
        with self._freed:
            self._held[key_id] -= 1
            if not self._held[key_id]:
                del self._held[key_id]
            self._freed.notify_all()

    @contextmanager
    def hold(self, key_id: str, seconds: float = 0.0) -> Iterator[bool]:
        """Holds a slot during the block if one is available within so many seconds; yields whether it does."""
        taken = self.acquire(key_id, seconds)
        try:
            yield taken
        finally:
            if taken:
                self.release(key_id)
