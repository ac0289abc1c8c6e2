"""Steps that are recorded once for each size and then replayed.

On a GPU a record is a CUDA graph. No GPU was at hand when this was written: what is proved is that a step over static
buffers says what the plain one says, and that a failure leads back to the plain one; what it gains is not. So nothing
is taken for granted: the warm-up tries both on the machine (trial.py), and only what was faster and said the same is
used.

Graphs hold addresses and cannot be stored: each process records them anew. Compiling the step instead (torch.compile,
whose cache can be stored) was tried on a processor with Whisper-base. It says the same, but took 123 s, and 59 s more
for another size, 9 s at a later start with its cache, and was four times slower than the step as it is. It would need
a C compiler and Python's headers on the machine, and nothing is known of it on a T4: it is left out.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from transcribe import logs
from transcribe.engine.cuda.steps import StaticStep

# Takes a step and the tensors that it changes, and gives what repeats the step; the tensors are as before.
Capture = Callable[[Callable[[], None], Sequence[Tensor]], Callable[[], object]]
WARM_STEPS = 2  # before a capture: libraries make their workspaces


class Replay:
    """The recorded steps of a batch. `failure` is why it records no more, or empty."""

    def __init__(self, step: StaticStep, capture: Capture) -> None:
        self._step = step
        self._capture = capture
        self._recorded: dict[tuple[int, int, int], Callable[[], object]] = {}
        self.failure = ""

    def __call__(self, rows: int, text: int) -> bool:
        """Moves the first `rows` on by one token, none with more than `text`; False if that could not be recorded."""
        if self.failure:
            return False
        sizes = self._step.sizes(rows, text)
        if sizes not in self._recorded:
            step = functools.partial(self._step, *sizes)
            try:
                self._recorded[sizes] = self._capture(step, self._step.cursor.tensors)
            except Exception as error:  # whatever it is, the plain step can go on
                self.failure = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                logs.warning("steps_not_recorded", reason=self.failure)
                return False
        self._recorded[sizes]()
        return True


def cuda_graph(step: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], object]:
    """Records `step` as a CUDA graph; a Capture."""
    before = [tensor.clone() for tensor in changed]
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            for _ in range(WARM_STEPS):
                step()
    finally:
        torch.cuda.current_stream().wait_stream(side)
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool()):
        step()
    return graph.replay


@functools.cache
def _pool() -> Any:
    """Memory that all graphs share: they never run at the same time, and leave nothing in it."""
    return torch.cuda.graph_pool_handle()
