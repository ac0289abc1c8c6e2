"""A greedy step with kernels of our own between its matrix products: a third of the work to start, and no sizes.

Texts and audio of any length take what they need, so that a step is recorded for numbers of rows alone.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cuda.kernels import LOADED, StepKernels
from transcribe.engine.decode.batch import Batch
from transcribe.engine.model.cross_attention_cache import PaddedCache
from transcribe.engine.model.network import FloatStream, Norm

FEWEST_ROWS = 8  # a GPU takes as long for one
ROWS_FACTOR = 2  # from one number of rows to the next, up to the batch's capacity


class FusedStream(FloatStream):
    """Adds and normalizes at the same time."""

    def __init__(self, kernels: StepKernels, plain: FloatStream) -> None:
        super().__init__(plain.activation, plain.result())
        self._kernels = kernels
        self._more: Tensor | None = None  # what is to be added before the next norm

    def add(self, output: Tensor) -> None:
        self._more = output

    def normalized(self, norm: Norm) -> Tensor:
        if self._more is None:
            return norm(self._x)
        more, self._more = self._more, None
        return self._kernels.add_norm(self._x, more, norm)

    def result(self) -> Tensor:
        return self._x if self._more is None else self._x + self._more


class FusedStep:
    """A greedy step of a batch, in buffers that it never replaces. The cross-attention cache must be a PaddedCache."""

    def __init__(self, batch: Batch, kernels: StepKernels) -> None:
        decoder, cross = batch.decoder, batch.cache.cross
        assert isinstance(cross, PaddedCache)
        assert decoder.head_weight is not None
        batch.cache.reserve(decoder.dims.context)
        batch.words.reserve(decoder.dims.context)
        self._batch, self._cross, self._kernels = batch, cross, kernels
        stream = decoder.layers.stream
        self._layers = replace(decoder.layers, stream=lambda x: FusedStream(kernels, stream(x)))  # type: ignore[arg-type]
        filled = -len(decoder.head_weight) % LOADED  # with rows that nobody chooses
        never = torch.where(batch.sampler.bias < 0, float("-inf"), 0.0).to(decoder.head_weight.dtype)
        self._head = F.pad(decoder.head_weight, (0, 0, 0, filled)), F.pad(never, (0, filled), value=float("-inf"))
        self._hidden: dict[int, Tensor] = {}  # by the number of rows, what the last step of so many left
        self._first = torch.zeros(1, dtype=torch.int32, device=decoder.positions.device)
        self._at = 0  # the same
        layers, heads = decoder.dims.decoder_layers, decoder.dims.decoder_heads
        self._slots = [batch.words.slots(layer, heads) for layer in range(layers)]
        self._rows = [min(FEWEST_ROWS, batch.capacity)]
        while self._rows[-1] < batch.capacity:
            self._rows.append(min(self._rows[-1] * ROWS_FACTOR, batch.capacity))

    def begin_at(self, first: int) -> None:
        """The next steps are of rows from `first` on."""
        if self._at != first:
            self._first.fill_(first)
            self._at = first

    def all_sizes(self) -> list[tuple[int, ...]]:
        """Every size that `sizes` returns, the largest first: what it allocates serves the others."""
        return [(count,) for count in reversed(self._rows)]

    def sizes(self, rows: int, text: int) -> tuple[int, ...]:
        """What this is called with for the first `rows`, with any number of tokens."""
        return (next(count for count in self._rows if rows <= count),)

    def __call__(self, rows: int) -> None:
        """Decodes a token of so many rows, from where `begin_at` says."""
        batch, kernels, first = self._batch, self._kernels, self._first
        cursor = batch.cursor

        def attend(layer: int, qkv: Tensor) -> Tensor:
            cache = batch.cache.keys[layer], batch.cache.values[layer]
            return kernels.attend_text(qkv, cache, cursor.lengths, first)

        def attend_audio(layer: int, query: Tensor) -> Tensor:
            kept = self._slots[layer], cursor.lengths, batch.words.kept
            return kernels.attend_audio(query, self._cross.of_layer(layer), kept, first)

        hidden = self._layers(kernels.embed(cursor, batch.decoder, first, rows), attend, attend_audio)
        self._hidden[rows] = hidden
        kernels.choose(F.linear(hidden, *self._head), batch.sampler, cursor, first)

    def hidden(self, rows: int) -> Tensor:
        """What the decoder's head was given in the step before, for the first `rows`: [rows, width]."""
        return self._hidden[self.sizes(rows, 0)[0]][:rows]
