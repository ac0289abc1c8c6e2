"""Ctrl-C and SIGTERM: they end a bake after it has cleaned up, and cannot interrupt the cleaning up."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from baker.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], None]

# Signals that were received and not yet acted upon. An exception raised by a handler is lost when it strikes inside a
# finalizer, where Python only prints it; waiting therefore looks here as well.
_received: list[str] = []


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _raise(number: int, frame: FrameType | None) -> None:
    _received.append(signal.Signals(number).name)
    raise Interrupted(_received[0])


@contextmanager
def raised() -> Iterator[None]:
    """Inside, a signal raises Interrupted wherever the program is."""
    _received.clear()
    with _handled(_raise):
        yield


@contextmanager
def held_off(say: Callable[[str], None]) -> Iterator[None]:
    """Inside, a signal only says that the cleaning up goes on."""
    with _handled(lambda number, frame: say("still cleaning up what the bake made; a few seconds more")):
        _received.clear()
        yield


def sleep(seconds: float) -> None:
    """Sleep; raises Interrupted if a signal was received before, and lost."""
    if _received:
        raise Interrupted(_received[0])
    time.sleep(seconds)
