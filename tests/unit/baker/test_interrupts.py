"""Signals end a bake, are never lost, and do not end its cleaning up."""

import os
import signal
from contextlib import suppress

import pytest
from baker import interrupts
from baker.errors import Interrupted


def test_a_signal_raises_where_the_program_is() -> None:
    with interrupts.raised(), pytest.raises(Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_struck_in_a_finalizer_is_found_by_the_next_wait() -> None:
    with interrupts.raised():
        with suppress(Interrupted):  # as Python does with an exception in a finalizer
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="SIGINT"):
            interrupts.sleep(0)


def test_cleaning_up_is_not_interrupted() -> None:
    told: list[str] = []
    with interrupts.raised():
        with interrupts.held_off(told.append):
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.sleep(0)
        assert told == ["still cleaning up what the bake made; a few seconds more"]


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts.raised():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
