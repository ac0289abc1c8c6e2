"""The one loop that waits for something to become true."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(
    condition: Callable[[], Found], seconds: float = 10.0, problem: Callable[[], object] = lambda: "it did not happen"
) -> Found:
    """Call `condition` until it returns something true, and return that; fails with `problem()` after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {problem()}"
        time.sleep(0.02)
    return found
