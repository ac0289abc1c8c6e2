"""The kernels of kernels.cu over torch's tensors: what a decoder's step does between its matrix products."""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from transcribe.engine.cpu.constants import MEDIAN
from transcribe.engine.cuda.compiler import Module, machine_code
from transcribe.engine.decode.alignment import cost
from transcribe.engine.decode.sampling import Sampler
from transcribe.engine.decode.state import Cursor
from transcribe.engine.model.config import ModelDimensions
from transcribe.engine.model.network import Decoder, Norm

SOURCE = Path(__file__).with_name("kernels.cu")
HEAD = 64  # numbers of an attention head
WARP, LANES = 32, 8  # threads, and of them those that share a vector of HEAD numbers
TEXT_THREADS, AUDIO_THREADS, KEEP_THREADS = 256, 512, 256  # of a block, as the source declares them
CHOOSE_THREADS, COST_THREADS, EMBED_THREADS = 1024, 128, 128
WIDEST, LARGEST = 2048, 57_344  # width and vocabulary that they are made for
Three = tuple[Tensor, Tensor, Tensor]
Audio = tuple[Tensor, ...]  # keys, values, lengths, and scales where there are some
LOADED = 8  # logits that are read at once: their rows begin at multiples of it


class StepKernels(Protocol):
    """The parts of a step, each of which works on whole tensors and returns nothing else than it says.

    [rows] are those of a batch of `capacity` rows, from the one on whose number is in `first`, int32 [1] on the device.
    """

    def embed(self, cursor: Cursor, decoder: Decoder, first: Tensor, rows: int) -> Tensor:
        """The embeddings [rows, width] of the rows' next tokens at their places."""

    def add_norm(self, x: Tensor, more: Tensor, norm: Norm) -> Tensor:
        """Adds `more` to `x`, and returns the norm of the sum; all [rows, width]."""

    def attend_text(self, qkv: Tensor, cache: tuple[Tensor, Tensor], places: Tensor, first: Tensor) -> Tensor:
        """[rows, 3 · width] → [rows, width]: keeps the new keys and values at `places` [capacity] of the
        cache, keys and values [capacity, heads, context, size], and attends to all up to them."""

    def attend_audio(self, query: Tensor, audio: Audio, kept: Three, first: Tensor) -> Tensor:
        """[rows, width] → [rows, width]. `audio`: keys and values [capacity, heads, positions, size] and the lengths
        [capacity]; where they are in bytes, scales [2, capacity, heads, positions] too. `kept`: which slot each head's
        weights are kept in, or -1 [heads]; the tokens' places [capacity]; and where they are kept [capacity, slots,
        context, positions]."""

    def keep_audio(self, product: Tensor, target: Three, first: Tensor) -> None:
        """Keeps `product` [rows, length, 2, heads, size] in bytes: `target` are keys and values [capacity, heads,
        positions, size] and scales [2, capacity, heads, positions]."""

    def choose(self, logits: Tensor, sampler: Sampler, cursor: Cursor, first: Tensor) -> None:
        """Chooses the next token of each row, and moves `cursor` on: by `logits` [rows, at least the vocabulary], where
        those that never may follow are minus infinity."""


class GpuKernels(StepKernels):
    """Compiled for the current GPU."""

    def __init__(self, folder: Path | None, *, store: bool) -> None:
        """`folder` keeps the machine code, which is written there if `store` says so. Raises CompilerError."""
        self._module = Module(machine_code(SOURCE.read_text(), folder, store=store))

    @staticmethod
    def fit(dims: ModelDimensions, dtype: torch.dtype) -> bool:
        """Whether they are made for such a model."""
        known = dims.width == dims.decoder_heads * HEAD and dims.width <= WIDEST and dims.vocabulary <= LARGEST
        return known and dtype == torch.float16

    def embed(self, cursor: Cursor, decoder: Decoder, first: Tensor, rows: int) -> Tensor:
        assert decoder.head_weight is not None
        width, capacity = decoder.dims.width, len(cursor.tokens)
        x = decoder.positions.new_empty(rows, width)
        tables = decoder.head_weight, decoder.positions
        arguments = (cursor.tokens, cursor.lengths, *tables, x, first, capacity, width, decoder.dims.context)
        self._module.start("embed", (rows, 1), EMBED_THREADS, arguments)
        return x

    def add_norm(self, x: Tensor, more: Tensor, norm: Norm) -> Tensor:
        rows, width = x.shape
        normed = torch.empty_like(x)
        arguments = (x, more, norm.weight, norm.bias, normed, width)
        self._module.start("add_norm", (rows, 1), -(-width // (8 * WARP)) * WARP, arguments)
        return normed

    def attend_text(self, qkv: Tensor, cache: tuple[Tensor, Tensor], places: Tensor, first: Tensor) -> Tensor:
        rows = len(qkv)
        capacity, heads, context, _ = cache[0].shape
        mixed = qkv.new_empty(rows, heads * HEAD)
        arguments = (qkv, *cache, places, mixed, first, capacity, context)
        self._module.start("attend_text", (heads, rows), TEXT_THREADS, arguments)
        return mixed

    def attend_audio(self, query: Tensor, audio: Audio, kept: Three, first: Tensor) -> Tensor:
        keys, values, lengths, *scales = audio
        slots, places, weights = kept
        capacity, heads, positions, _ = keys.shape
        mixed = torch.empty_like(query)
        sizes = weights.shape[1], weights.shape[2], positions
        arguments: tuple[Tensor | int, ...] = (query, keys, values, *scales, lengths, mixed, slots, places, weights)
        name = "attend_audio_bytes" if scales else "attend_audio"
        arguments += (*sizes, first, capacity)
        self._module.start(name, (heads, len(query)), AUDIO_THREADS, arguments, 4 * positions)
        return mixed

    def keep_audio(self, product: Tensor, target: Three, first: Tensor) -> None:
        count, length, _, heads, _ = product.shape
        capacity, positions = target[0].shape[0], target[0].shape[2]
        blocks = -(-count * length * 2 * heads * LANES // KEEP_THREADS)
        arguments = (product, *target, first, count, length, heads, positions, capacity)
        self._module.start("keep_audio", (blocks, 1), KEEP_THREADS, arguments)

    def choose(self, logits: Tensor, sampler: Sampler, cursor: Cursor, first: Tensor) -> None:
        rows, stride = logits.shape
        steps, _, capacity = cursor.recent.shape
        state = cursor.state
        flags = state.fresh, state.last, state.before_last, state.latest
        moved = cursor.tokens, cursor.logprobs, cursor.lengths, cursor.recent
        arguments = (logits, *flags, *moved, first, steps, capacity, stride, *sampler.limits)
        self._module.start("choose", (rows, 1), CHOOSE_THREADS, arguments)

    def alignment_cost(self, attention: Tensor, width: int) -> Tensor:
        """alignment.cost, of attention in float16."""
        heads, tokens, positions = attention.shape
        if width != MEDIAN or positions <= MEDIAN or attention.dtype != torch.float16:
            return cost(attention, width)
        attention = attention.contiguous()
        scales, spread = (attention.new_empty(n, dtype=torch.float32) for n in (heads * tokens, 2 * heads * positions))
        found = attention.new_empty(tokens, positions, dtype=torch.float32)
        blocks = -(-positions // COST_THREADS)
        self._module.start("attention_scales", (tokens, heads), COST_THREADS, (attention, scales, positions))
        arguments = (attention, scales, spread, tokens, positions)
        self._module.start("attention_spread", (blocks, heads), COST_THREADS, arguments)
        wanted = (attention, scales, spread, found, heads, tokens, positions)
        self._module.start("alignment_cost", (blocks, tokens), COST_THREADS, wanted)
        return found
