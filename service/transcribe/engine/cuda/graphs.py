"""Greedy steps that are recorded once for each size and then replayed; on a GPU a record is a CUDA graph.

The plain step starts hundreds of small kernels from Python for every token, which on a GPU takes longer than they run.
Here buffers stay where they are and sizes are rounded up to a few, so that a step can be recorded for each of them, all
before the first recording comes. Rows that are not in use are computed too; nothing reads them. Only what the warm-up
found to be faster and to choose the same tokens is used (trial.py). A recording that fails is tried again, a few times;
what cannot be recorded is done by the plain step, and all of it is counted.

Graphs hold addresses and cannot be stored: each process records them anew. Compiling the step instead (torch.compile,
whose cache can be stored) was tried on a processor with Whisper-base: the same tokens, but 123 s to compile, 59 s more
for another size, 9 s at a later start with its cache, and steps four times slower. It would also need a C compiler and
Python's headers on the machine.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from transcribe import logs
from transcribe.engine.cuda.fused import FusedStep
from transcribe.engine.cuda.kernels import StepKernels
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.state import RECENT
from transcribe.engine.model.cross_attention_cache import PaddedCache
from transcribe.engine.model.features import FEW_SIZES
from transcribe.engine.model.network import attend_text

# Takes a step and the tensors that it changes, and returns what repeats the step; the tensors are as before.
Capture = Callable[[Callable[[], None], Sequence[Tensor]], Callable[[], object]]
Sizes = tuple[int, ...]  # rows; without kernels also the tokens of text and positions of audio that are attended to
WARM_STEPS = 2  # before a capture: libraries allocate their workspaces
CAPTURES = 3  # tries to record a step of one size
FEWEST_ROWS = 8  # a GPU takes as long for one
ROWS_FACTOR = 4  # from one number of rows to the next, up to the batch's capacity
TEXT = 128  # tokens, the next one included: a longer text is attended to as if it were as long as the context


class StaticStep:
    """A greedy step of a batch, in buffers that it never replaces. The cross-attention cache must be a PaddedCache."""

    def __init__(self, batch: Batch) -> None:
        assert isinstance(batch.cache.cross, PaddedCache)
        dims = batch.decoder.dims
        batch.cache.reserve(dims.context)
        batch.words.reserve(dims.context)
        self._cross = batch.cache.cross
        self._batch = batch
        rows = [FEWEST_ROWS]
        while rows[-1] < batch.capacity:
            rows.append(rows[-1] * ROWS_FACTOR)
        frames = {min(size // 2, dims.positions) for size in FEW_SIZES}
        self._rows = [min(count, batch.capacity) for count in rows]
        self._text = [TEXT, dims.context] if dims.context > TEXT else [dims.context]
        self._audio = sorted({*frames, dims.positions})

    def all_sizes(self) -> list[Sizes]:
        """Every size that `sizes` returns, the largest first: what it allocates serves the others."""
        return list(itertools.product(self._rows[::-1], self._text[::-1], self._audio[::-1]))

    def sizes(self, rows: int, text: int) -> Sizes:
        """What this is called with for the first `rows`, none with more than `text` tokens, the next one included."""
        wanted = (rows, self._rows), (text, self._text), (self._cross.longest(rows), self._audio)
        count, tokens, positions = (next(size for size in known if need <= size) for need, known in wanted)
        return count, tokens, positions

    def __call__(self, rows: int, text: int, audio: int) -> None:
        """Decodes a token of the first `rows`, attending to `text` tokens and `audio` positions."""
        batch, cursor = self._batch, self._batch.cursor
        places = cursor.lengths[:rows].clamp(max=text - 1)  # a row that is not in use may be anywhere
        logits = batch.decoder.head(self._hidden(places, text, audio))
        tokens, logprobs = batch.sampler.choose(logits, cursor.state.of_rows(slice(0, rows)), None)
        place = cursor.lengths[:rows] % RECENT
        row = torch.arange(rows, device=place.device)
        cursor.recent[place, 0, row] = tokens.to(torch.int32)
        cursor.recent[place, 1, row] = logprobs.float().view(torch.int32)
        cursor.tokens[:rows].copy_(tokens)
        cursor.logprobs[:rows].copy_(logprobs)
        cursor.lengths[:rows].add_(1)

    def _hidden(self, places: Tensor, text: int, audio: int) -> Tensor:
        """[rows, width]"""
        decoder, cache, rows = self._batch.decoder, self._batch.cache, len(places)
        x = decoder.embed(self._batch.cursor.tokens[:rows]) + decoder.positions[places]
        ahead = torch.arange(text, device=places.device) > places[:, None, None, None]
        mask = torch.zeros(ahead.shape, dtype=x.dtype, device=x.device).masked_fill_(ahead, float("-inf"))

        def attend(layer: int, qkv: Tensor) -> Tensor:
            kept = cache.keys[layer, :rows], cache.values[layer, :rows]
            return attend_text(decoder.dims.decoder_heads, qkv, *kept, (places[:, None], mask))

        def attend_audio(layer: int, query: Tensor) -> Tensor:
            mixed, weights = self._cross.attend_within(layer, slice(0, rows), query, audio)
            self._batch.words.note(layer, weights, places)
            return mixed

        return decoder.layers(x[:, None], attend, attend_audio)[:, 0]


class Replay:
    """The recorded steps of a batch.

    `failed_captures` counts the recordings that failed, and `failure` is why the last one did, or empty.
    """

    def __init__(self, batch: Batch, capture: Capture, kernels: StepKernels | None = None) -> None:
        """`kernels` are what a step is made of where there are some, and else torch's operations."""
        self._step = StaticStep(batch) if kernels is None else FusedStep(batch, kernels)
        self._changed = batch.cursor.tensors
        self._capture = capture
        self._recorded: dict[Sizes, Callable[[], object]] = {}
        self.failed_captures = 0
        self.failure = ""

    def record(self, sizes: Sequence[Sizes] | None = None) -> bool:
        """Whether the steps of these sizes, or of all, could be recorded, each in CAPTURES tries. Raises
        torch.OutOfMemoryError."""
        wanted = self._step.all_sizes() if sizes is None else sizes
        for size in wanted:
            if size not in self._recorded:
                any(self._try(size, tries) for tries in range(CAPTURES, 0, -1))
        return self._recorded.keys() >= set(wanted)

    def sizes(self, rows: int, text: int) -> Sizes:
        """StaticStep's."""
        return self._step.sizes(rows, text)

    def __call__(self, rows: int, text: int, steps: int = 1, first: int = 0) -> bool:
        """Moves so many rows from `first` on by `steps` tokens, none of them with more than `text` before the last
        step; False if that is not recorded."""
        if isinstance(self._step, FusedStep):
            self._step.begin_at(first)
        elif first:
            return False
        replay = self._recorded.get(self._step.sizes(rows, text))
        if replay is None:
            return False
        for _ in range(steps):
            replay()
        return True

    def hidden(self, rows: int) -> Tensor | None:
        """What the decoder's head was given in the step before, for the first `rows`: [rows, width]; None where that is
        not kept."""
        return self._step.hidden(rows) if isinstance(self._step, FusedStep) else None

    def _try(self, sizes: Sizes, tries: int) -> bool:
        """Whether a step of these sizes was recorded; `tries` are left, this one included."""
        try:
            self._recorded[sizes] = self._capture(functools.partial(self._step, *sizes), self._changed)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever it is, the plain step can go on
            self.failed_captures += 1
            self.failure = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            logs.warning("step_not_recorded", sizes=list(sizes), tries_left=tries - 1, reason=self.failure)
            return False
        return True


Recorder = Callable[[Batch], Replay]  # makes what records the steps of a batch


def recorder(kernels: StepKernels | None = None) -> Recorder:
    """Of CUDA graphs: of `kernels`, or of torch's operations."""
    return lambda batch: Replay(batch, CudaGraphs(), kernels)


def record(batch: Batch, replay: Replay) -> Replay:
    """From now on the batch's greedy steps are replayed, where they can be recorded now."""
    replay.record()
    batch.greedy_step = replay
    return replay


class CudaGraphs:
    """A Capture that makes CUDA graphs. All of one object's share memory: they never run at the same time, and leave
    nothing in it.

    torch frees that memory with the last graph in it, and no later capture can use it: it fails with "INTERNAL ASSERT
    FAILED at CUDACachingAllocator.cpp". So every batch has an object of its own, which lives as long as its graphs, and
    after a capture that failed, which may have been the memory's only one, the next begins with fresh memory.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], object]:
        warm(step, changed)
        pool = torch.cuda.graph_pool_handle() if self._pool is None else self._pool
        self._pool = None
        replay = cuda_graph(step, pool)
        self._pool = pool
        return replay


def warm(step: Callable[[], None], changed: Sequence[Tensor]) -> None:
    """Runs `step` as a capture demands it, on a stream of its own; the tensors are as before."""
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


def cuda_graph(step: Callable[[], None], pool: Any) -> Callable[[], object]:
    """Records `step` as a CUDA graph with its memory in `pool`."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        step()
    return graph.replay
