"""Shares the work on one recording with cores that are idle at that moment, and with none while others want them."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from transcribe.engine import limit_threads

LOAD = Path("/proc/loadavg")
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """`work` of each item, in their order; raises what it raises. The calling thread works, and threads on idle cores
    do what comes next meanwhile."""
    results: list[Future[Result]] = [Future() for _ in items]
    left = deque(zip(results, items, strict=True))
    for _ in range(min(idle(), len(items) - 1) if len(items) > 1 else 0):
        _threads().submit(_work, work, left)
    try:
        for result in results:
            while left and not result.done():
                _step(work, left)
            yield result.result()
    finally:
        left.clear()


def beside(work: Callable[[], Result]) -> Callable[[], Result]:
    """What gives the result of `work`, called once: an idle core does it meanwhile; where there is none, it is done
    when it is asked for."""
    return _threads().submit(work).result if idle() else work


def idle() -> int:
    """How many cores have nothing to do; 0 where the system does not tell."""
    try:
        running, _, _ = LOAD.read_text().split()[3].partition("/")
        return max(0, count() - int(running))
    except (OSError, ValueError, IndexError):
        return 0


def count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, count() - 1), "beside", initializer=limit_threads, initargs=(1,))


def _work(work: Callable[[Item], Result], left: "deque[tuple[Future[Result], Item]]") -> None:
    while left:
        _step(work, left)


def _step(work: Callable[[Item], Result], left: "deque[tuple[Future[Result], Item]]") -> None:
    """Takes the next item, if there still is one, and does it."""
    try:
        result, item = left.popleft()
    except IndexError:
        return
    try:
        result.set_result(work(item))
    except BaseException as error:
        result.set_exception(error)
