"""A bounded number of places for requests that take long, shared fairly between keys."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """`total` places. A key may take one while it holds fewer than are free: one key alone gets half of them, two get a
    third each, and whoever comes new finds a place. (Choudhury and Hahne, "Dynamic queue length thresholds", 1998.)"""

    def __init__(self, total: int) -> None:
        self.total = total
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, key_id: str) -> bool:
        """Whether there was one. '' is a client without a key: there are no others, and it may have them all."""
        with self._lock:
            free = self.total - self._held.total()
            if free <= 0 or (key_id and self._held[key_id] >= free):
                return False
            self._held[key_id] += 1
            return True

    def give_back(self, key_id: str) -> None:
        """Frees a place that `take` gave."""
        with self._lock:
            self._held[key_id] -= 1
            if not self._held[key_id]:
                del self._held[key_id]

    @contextmanager
    def hold(self, key_id: str) -> Iterator[bool]:
        """Holds a place meanwhile, if there is one; tells whether."""
        taken = self.take(key_id)
        try:
            yield taken
        finally:
            if taken:
                self.give_back(key_id)
