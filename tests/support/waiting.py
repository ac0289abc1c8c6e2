"""Waiting for a condition, and doing something meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Found = TypeVar("Found")


def until(
    condition: Callable[[], Found], seconds: float = 30.0, problem: Callable[[], object] = lambda: "it did not happen"
) -> Found:
    """Call `condition` until it returns something true, and return that; fails with `problem()` after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {problem()}"
        time.sleep(0.02)
    return found


@contextmanager
def repeating(action: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call `action` in a thread of its own during the block, with pauses of `seconds`."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
