"""CUDA graphs without CUDA: a graph repeats its step, and its memory is freed and refused as torch does it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count, repeat
from typing import Any
from weakref import WeakSet

import pytest
import torch
from torch import Tensor
from transcribe.engine.cuda import graphs

DEAD = "it->second->use_count > 0 INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:2799"
REFUSED = "operation not permitted when stream is capturing"


class Graph:
    """A recorded step."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step

    def replay(self) -> None:
        self._step()


class GraphMemory:
    """Pools of memory by their handles. A pool whose last graph is gone is dead: no graph can be captured into it.

    `fails` says of each capture whether it fails; it takes memory of its pool nevertheless.
    """

    def __init__(self, fails: Iterable[bool] = ()) -> None:
        self.captures = 0
        self._handles = count()
        self._pools: dict[Any, WeakSet[Graph]] = {}
        self._fails: Iterator[bool] = chain(fails, repeat(False))

    def handle(self) -> int:
        """A handle of a new pool."""
        return next(self._handles)

    def capture(self, step: Callable[[], None], pool: Any) -> Callable[[], object]:
        """In place of graphs.cuda_graph."""
        self.captures += 1
        if pool in self._pools and not self._pools[pool]:
            raise RuntimeError(DEAD)
        graph = Graph(step)
        self._pools.setdefault(pool, WeakSet()).add(graph)
        if next(self._fails):
            raise RuntimeError(REFUSED)
        return graph.replay

    @property
    def pools(self) -> int:
        """How many were used."""
        return len(self._pools)


def warm(step: Callable[[], None], changed: Sequence[Tensor]) -> None:
    """In place of graphs.warm: the step is done, and what it changed is taken back."""
    before = [tensor.clone() for tensor in changed]
    step()
    for tensor, value in zip(changed, before, strict=True):
        tensor.copy_(value)


def emulate(monkeypatch: pytest.MonkeyPatch, fails: Iterable[bool] = ()) -> GraphMemory:
    """From now on CUDA graphs are made in this memory."""
    memory = GraphMemory(fails)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", memory.handle)
    monkeypatch.setattr(graphs, "cuda_graph", memory.capture)
    monkeypatch.setattr(graphs, "warm", warm)
    return memory
