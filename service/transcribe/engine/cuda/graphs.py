"""Greedy steps that are recorded once for each size and then replayed; on a GPU a record is a CUDA graph.

The plain step starts hundreds of small kernels from Python for every token, which on a GPU takes longer than they run.
Here buffers stay where they are and sizes are rounded up to a few, so that a step can be recorded for each of them.
Rows that are not in use are computed too; nothing reads them. Only what the warm-up found to be faster and to choose
the same tokens is used (trial.py), and when a recording fails, the plain step goes on.

Graphs hold addresses and cannot be stored: each process records them anew. Compiling the step instead (torch.compile,
whose cache can be stored) was tried on a processor with Whisper-base: the same tokens, but 123 s to compile, 59 s more
for another size, 9 s at a later start with its cache, and steps four times slower. It would also need a C compiler and
Python's headers on the machine.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from transcribe import logs
from transcribe.engine.decode.batch import Batch
from transcribe.engine.model.cross_attention_cache import PaddedCache
from transcribe.engine.model.network import attend_text

# Takes a step and the tensors that it changes, and returns what repeats the step; the tensors are as before.
Capture = Callable[[Callable[[], None], Sequence[Tensor]], Callable[[], object]]
WARM_STEPS = 2  # before a capture: libraries allocate their workspaces
TEXT_SIZES = (64, 128, 256)  # tokens that are attended to; beyond them it is the decoder's whole context
AUDIO_SHARES = 2  # the audio is attended to up to its half, or whole


class StaticStep:
    """A greedy step of a batch, in buffers that it never replaces. The cross-attention cache must be a PaddedCache."""

    def __init__(self, batch: Batch) -> None:
        assert isinstance(batch.cache.cross, PaddedCache)
        batch.cache.reserve(batch.decoder.dims.context)
        self._cross = batch.cache.cross
        self._batch = batch

    def sizes(self, rows: int, text: int) -> tuple[int, int, int]:
        """What this is called with for the first `rows`, none with more than `text` tokens, the next one included."""
        dims = self._batch.decoder.dims
        tokens = next((size for size in TEXT_SIZES if text <= size < dims.context), dims.context)
        share = -(-dims.positions // AUDIO_SHARES)
        audio = min(-(-self._cross.longest(rows) // share) * share, dims.positions)
        return min(1 << (rows - 1).bit_length(), self._batch.capacity), tokens, audio

    def __call__(self, rows: int, text: int, audio: int) -> None:
        """Decodes a token of the first `rows`, attending to `text` tokens and `audio` positions."""
        batch, cursor = self._batch, self._batch.cursor
        places = cursor.lengths[:rows].clamp(max=text - 1)  # a row that is not in use may be anywhere
        logits = batch.decoder.head(self._hidden(places, text, audio))
        tokens, logprobs = batch.sampler.choose(logits, cursor.state.head(rows), None)
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
            return self._cross.attend_within(layer, slice(0, rows), query, audio)

        return decoder.layers(x[:, None], attend, attend_audio)[:, 0]


class Replay:
    """The recorded steps of a batch. `failure` is why it records no more, or empty."""

    def __init__(self, batch: Batch, capture: Capture) -> None:
        self._step = StaticStep(batch)
        self._changed = batch.cursor.tensors
        self._capture = capture
        self._recorded: dict[tuple[int, int, int], Callable[[], object]] = {}
        self.failure = ""

    def __call__(self, rows: int, text: int) -> bool:
        """Moves the first `rows` on by one token, none with more than `text`; False if that could not be recorded."""
        if self.failure:
            return False
        sizes = self._step.sizes(rows, text)
        if sizes not in self._recorded:
            try:
                self._recorded[sizes] = self._capture(functools.partial(self._step, *sizes), self._changed)
            except Exception as error:  # whatever it is, the plain step can go on
                self.failure = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                logs.warning("steps_not_recorded", reason=self.failure)
                return False
        self._recorded[sizes]()
        return True


def record(batch: Batch, capture: Capture) -> Replay:
    """From now on the batch's greedy steps are recorded by `capture` and replayed, until that fails."""
    batch.greedy_step = replay = Replay(batch, capture)
    return replay


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
