"""Threads give way to other programs, and come back."""

import hashlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from transcribe.engine.cpu.threads import ThreadThrottle, longer, waited


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Machine:
    """Its clock, and how long this process has waited for a core."""

    def __init__(self, threads: int = 2) -> None:
        self.time = self.waited = 0.0
        self.throttle = ThreadThrottle(lambda: {1: self.waited}, lambda: self.time, threads=threads)

    def spend(self, seconds: float, share: float) -> list[int]:
        """Time passes, of which the process waits a share; the number of threads after each look."""
        told = []
        for _ in range(round(seconds / 0.3)):
            self.time += 0.3
            self.waited += 0.3 * share
            self.throttle.update()
            assert torch.get_num_threads() == self.throttle.threads
            told.append(self.throttle.threads)
        return told


def test_alone_it_keeps_all_threads_and_crowded_it_takes_one_less() -> None:
    machine = Machine()
    torch.set_num_threads(2)
    assert set(machine.spend(30, 0.05)) == {2}
    assert machine.spend(0.6, 0.6) == [2, 1]


def test_as_many_threads_give_way_as_stood_without_a_core() -> None:
    machine = Machine(threads=8)
    torch.set_num_threads(8)
    assert machine.spend(0.6, 3.1) == [8, 5]
    assert machine.spend(0.6, 9.0)[-1] == 1


def test_a_crowd_that_passes_is_none() -> None:
    """Clips that arrive together are decoded in a moment."""
    machine = Machine()
    torch.set_num_threads(2)
    machine.spend(30, 0.0)
    for _ in range(5):
        assert set(machine.spend(0.3, 0.9) + machine.spend(0.3, 0.0)) == {2}


def test_it_comes_back_and_tries_less_often_where_that_is_too_soon() -> None:
    machine = Machine()
    torch.set_num_threads(2)
    machine.spend(60, 0.0)
    tried = []
    for _ in range(300):  # whenever it has two threads again, it is crowded
        before = machine.throttle.threads
        if machine.spend(0.3, 0.6 if before == 2 else 0.0) == [2] and before == 1:
            tried.append(machine.time)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert gaps == sorted(gaps)
    assert 20 < gaps[-1] < 40
    machine.spend(40, 0.0)
    assert machine.spend(5, 0.0)[-1] == 2


def test_what_other_threads_of_python_wait_for_is_not_counted() -> None:
    """They decode recordings; eight of them on two cores wait for one another, and nobody takes the engine's core."""
    stop = threading.Event()
    digest = bytes(1 << 20)

    def work() -> None:
        while not stop.is_set():
            hashlib.sha256(digest)  # without Python's lock

    others = [threading.Thread(target=work) for _ in range(4 * (os.cpu_count() or 1))]
    for other in others:
        other.start()
    before = waited()
    time.sleep(0.3)
    found = longer(before, waited())
    stop.set()
    for other in others:
        other.join()
    assert found < 0.1  # with them it would be more than a second


def test_waiting_is_what_linux_counts() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # a child inherits it: the two share that core
    try:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            before, end = waited(), time.monotonic() + 0.3
            while time.monotonic() < end:
                pass
            other.kill()
        assert longer(before, waited()) > 0.03
    finally:
        os.sched_setaffinity(0, cores)
