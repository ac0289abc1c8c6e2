"""Threads give way to other programs, and come back."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch
from transcribe.engine.cpu.crowding import Crowding, waited


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Machine:
    """Its clock, and how long this process has waited for a core."""

    def __init__(self) -> None:
        self.time = self.waited = 0.0
        self.crowding = Crowding(lambda: self.waited, lambda: self.time, threads=2)

    def spend(self, seconds: float, share: float) -> list[int]:
        """Time passes, of which the process waits a share; the number of threads after each look."""
        told = []
        for _ in range(round(seconds / 0.3)):
            self.time += 0.3
            self.waited += 0.3 * share
            self.crowding.look()
            assert torch.get_num_threads() == self.crowding.threads
            told.append(self.crowding.threads)
        return told


def test_alone_it_keeps_all_threads_and_crowded_it_takes_one_less() -> None:
    machine = Machine()
    torch.set_num_threads(2)
    assert set(machine.spend(30, 0.05)) == {2}
    assert machine.spend(0.3, 0.6) == [1]


def test_it_comes_back_and_tries_less_often_where_that_is_too_soon() -> None:
    machine = Machine()
    torch.set_num_threads(2)
    machine.spend(60, 0.0)
    tried = []
    for _ in range(300):  # whenever it has two threads again, it is crowded
        told = machine.spend(0.3, 0.6 if machine.crowding.threads == 2 else 0.0)
        if told == [2]:
            tried.append(machine.time)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert gaps == sorted(gaps)
    assert 20 < gaps[-1] < 40
    machine.spend(40, 0.0)
    assert machine.spend(5, 0.0)[-1] == 2


def test_waiting_is_what_linux_counts() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # a child inherits it: the two share that core
    try:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            before, end = waited(), time.monotonic() + 0.3
            while time.monotonic() < end:
                pass
            other.kill()
        assert waited() > before + 0.03
    finally:
        os.sched_setaffinity(0, cores)
