"""The worker's memory: threads share it, and what a busy moment needed goes back. In processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transcribe import memory

pytestmark = pytest.mark.attack

PROGRAM = """
import threading
import numpy as np
from transcribe import memory

def figures():
    lines = [line.split() for line in open("/proc/self/smaps_rollup")]
    return next(int(line[1]) for line in lines if line[0] == "Anonymous:") // 1024

def work():
    blocks = [np.ones(125_000) for _ in range(20)]  # 20 MB in blocks of 1 MB
    kept.append([np.ones(100) for _ in range(10)])  # so that the end of an arena is in use
    del blocks

memory.keep_large_blocks()
if LIMITED:
    memory.share_arenas()
kept, before = [], figures()
barrier = threading.Barrier(16)
threads = [threading.Thread(target=lambda: (barrier.wait(), work(), barrier.wait())) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
busy = figures() - before
memory.give_back()
print(busy, figures() - before)
"""


def measured(*, limited: bool) -> tuple[int, int]:
    """Megabytes that 16 threads left behind, and that are left once memory was given back."""
    program = f"LIMITED = {limited}\n{PROGRAM}"
    environment = {**os.environ, "PYTHONPATH": str(Path(memory.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    busy, rest = map(int, done.stdout.split())
    return busy, rest


def test_what_threads_needed_is_given_back() -> None:
    busy, rest = measured(limited=True)
    assert rest < busy / 2


def test_threads_do_not_keep_memory_each() -> None:
    own, shared = measured(limited=False)[0], measured(limited=True)[0]
    assert shared < own
