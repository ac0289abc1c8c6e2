"""Runners side by side on a processor, each with a share of the threads.

A token's products are so small that threads which share one wait for each other longer than they work as soon as
anything else runs on the machine: so two runners work on chunks of their own, and meet nowhere. When only one has work,
it has the caller's thread and all that belong to it.
"""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from .api import Chunk, ChunkResult
from .runner import Runner

LANES = 2


def lanes_for(threads: int, max_chunks: int) -> int:
    """How many runners suit so many threads."""
    return max(1, min(LANES, threads, max_chunks))


class Lanes:
    """What a Runner is, over several. One thread may use it."""

    def __init__(self, runners: Sequence[Runner], threads: int) -> None:
        self._runners = runners
        self._share = max(1, threads // len(runners))
        self._pool = ThreadPoolExecutor(len(runners), thread_name_prefix="lane")
        self._steps: dict[Runner, Future[list[ChunkResult]]] = {}
        self._results: list[ChunkResult] = []

    def room(self) -> int:
        return sum(runner.room() for runner in self._runners)

    def add(self, chunk: Chunk) -> None:
        """It goes where there is most room."""
        max(self._runners, key=Runner.room).add(chunk)
        self._go_on()

    def discard(self, key: object) -> None:
        wait(self._steps.values())
        self._collect()
        self._results = [result for result in self._results if result.key != key]
        for runner in self._runners:
            runner.discard(key)

    def step(self) -> list[ChunkResult]:
        """Waits until a runner has made a step."""
        alone = self._go_on()
        if alone is not None:
            self._results += alone.step()
        elif not self._results and self._steps:
            wait(self._steps.values(), return_when=FIRST_COMPLETED)
            self._go_on()
        results, self._results = self._results, []
        return results

    def _collect(self) -> None:
        for runner, step in list(self._steps.items()):
            if step.done():
                del self._steps[runner]
                self._results += step.result()

    def _go_on(self) -> Runner | None:
        """Every runner that has work begins a step; but when it is the only one, it is returned instead."""
        self._collect()
        idle = [runner for runner in self._runners if runner not in self._steps and runner.busy()]
        if len(idle) == 1 and not self._steps:
            return idle[0]
        for runner in idle:
            self._steps[runner] = self._pool.submit(_step, runner, self._share)
        return None


def _step(runner: Runner, threads: int) -> list[ChunkResult]:
    torch.set_num_threads(threads)  # of this lane's
    return runner.step()
