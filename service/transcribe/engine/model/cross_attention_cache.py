"""Keys and values of the encoded audio for the decoder's cross-attention, in the form that is fastest on the device.

Every token reads all of them in every layer, so on a processor their bytes decide how fast the decoder is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.constants import padded
from transcribe.engine.cpu.int8 import Matrix
from transcribe.engine.cpu.library import Library
from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.config import ModelDimensions


class CrossAttentionCache(Protocol):
    """The encoded audio of every row of a batch."""

    def store(self, first: int, encoded: Tensor) -> None:
        """Stores encoded audio [windows, positions, width] in as many rows, from `first` on."""

    def move(self, source: int, target: int) -> None:
        """Copies row `source` to row `target`."""

    def clear(self) -> None:
        """Gives up the memory of rows, none of which is in use, where it grew with them."""

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention of `query` [rows, count, width] in `layer`: the output, of the same shape, and the attention
        weights [rows, heads, count, positions], which mean nothing beyond the end of a row's audio."""


class PaddedCache(CrossAttentionCache):
    """Keys and values of every layer, rows padded to the longest: few and large products, as GPUs and float32 want.

    `like` gives the device and the dtype; `cross` are the layers' products from the encoded audio to keys and values
    [positions, 2 · width].
    """

    def __init__(
        self,
        dims: ModelDimensions,
        rows: int,
        cross: Sequence[Linear],
        like: Tensor,
        *,
        kept: torch.dtype | None = None,
    ) -> None:
        """`kept` is the dtype of keys and values, where it is another."""
        self._heads = dims.decoder_heads
        self._cross = cross
        size = dims.width // dims.decoder_heads
        self._keys = like.new_zeros(len(cross), rows, self._heads, dims.positions, size, dtype=kept)
        self._values = torch.zeros_like(self._keys)
        self._mask = like.new_zeros(rows, 1, 1, dims.positions)
        self._lengths = [0] * rows
        self._next = 0  # the row that what is kept next belongs to
        self._positions = torch.zeros(rows, dtype=torch.int32, device=like.device)  # the same, on the device
        # oneDNN's products copy matrices that do not lie back to back: reading some silence costs less.
        self._whole = like.dtype == torch.bfloat16 and like.device.type == "cpu"

    def store(self, first: int, encoded: Tensor) -> None:
        self.begin_at(first)
        self.keep(encoded)
        self.set_lengths(range(first, first + len(encoded)), encoded.shape[1])

    def begin_at(self, first: int) -> None:
        """What is kept next belongs to rows from `first` on."""
        self._next = first

    def keep(self, encoded: Tensor) -> None:
        """Keeps the keys and values of encoded audio [windows, positions, width]; the rows' lengths stay."""
        count, length, _ = encoded.shape
        for layer, cross in enumerate(self._cross):
            self._keep(layer, cross(encoded).view(count, length, 2, self._heads, -1))

    def set_lengths(self, rows: Sequence[int], length: int) -> None:
        """What is kept of these rows has so many positions."""
        for row in rows:
            self._set_length(row, length)

    def _keep(self, layer: int, product: Tensor) -> None:
        """Keeps the keys and values `product` [rows, positions, 2, heads, size] of a layer."""
        count, length = product.shape[:2]
        rows = slice(self._next, self._next + count)
        keys, values = product.transpose(1, 3).unbind(2)
        self._keys[layer, rows, :, :length] = keys
        self._values[layer, rows, :, :length] = values

    def _set_length(self, row: int, length: int) -> None:
        if self._lengths[row] != length:
            self._lengths[row] = length
            self._positions[row] = length
            self._mask[row, ..., :length] = 0.0
            self._mask[row, ..., length:] = float("-inf")

    def move(self, source: int, target: int) -> None:
        length = self._lengths[source]
        self._keys[:, target, :, :length] = self._keys[:, source, :, :length]
        self._values[:, target, :, :length] = self._values[:, source, :, :length]
        self._set_length(target, length)

    def clear(self) -> None:
        return  # it has one size

    def of_layer(self, layer: int) -> tuple[Tensor, ...]:
        """Keys and values [rows, heads, positions, size] of all rows, as they are kept, and how many positions each
        has, int32 [rows]."""
        return self._keys[layer], self._values[layer], self._positions

    def longest(self, rows: int) -> int:
        """Positions of the longest audio of the first `rows`."""
        return max(self._lengths[:rows])

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        lengths = self._lengths[rows]
        longest = self._keys.shape[3] if self._whole else max(lengths)
        mask = self._mask[rows, :, :, :longest] if min(lengths) < longest else None
        return self._attend(layer, (rows, longest), query, mask)

    def attend_within(self, layer: int, rows: slice, query: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """As `attend`, of the first `longest` positions: the rows' lengths decide over values, never over sizes."""
        return self._attend(layer, (rows, longest), query, self._mask[rows, :, :, :longest])

    def _attend(
        self, layer: int, where: tuple[slice, int], query: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        batch, count, _ = query.shape
        rows, longest = where
        keys, values = self._parts(layer, rows, longest)
        q = query.to(keys.dtype).view(batch, count, self._heads, -1).transpose(1, 2)
        scores = q @ keys.transpose(2, 3)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        mixed = (weights @ values).transpose(1, 2).reshape(batch, count, -1)
        return mixed.to(query.dtype), weights

    def _parts(self, layer: int, rows: slice, longest: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `longest` positions, to be multiplied."""
        return self._keys[layer, rows, :, :longest], self._values[layer, rows, :, :longest]


@dataclass(frozen=True)
class QuantizedAudio:
    """The keys and values of one row, each channel with a scale of its own."""

    length: int
    keys: Tensor  # int8 [layers, heads, size, padded]
    values: Tensor  # int8 [layers, heads, padded, size]
    scales: Tensor  # float32 [layers, 2, heads, size]: of the keys, and of the values

    @classmethod
    def empty(cls, dims: ModelDimensions, length: int) -> "QuantizedAudio":
        layers, heads = dims.decoder_layers, dims.decoder_heads
        size = dims.width // heads
        places = padded(length)
        keys = torch.empty(layers, heads, size, places, dtype=torch.int8)
        values = torch.empty(layers, heads, places, size, dtype=torch.int8)
        return cls(length, keys, values, torch.empty(layers, 2, heads, size))

    def layers(self) -> list[tuple[int, int, int, int]]:
        """Length and the addresses of keys, values and scales, of each layer."""
        parts = zip(self.keys, self.values, self.scales, strict=True)
        return [(self.length, *(part.data_ptr() for part in layer)) for layer in parts]


class Int8Cache(CrossAttentionCache):
    """Keys and values in int8, half of what bfloat16 takes, which a kernel multiplies as it reads them.

    Queries, weights and sums are float32, so that only the keys and values themselves are rounded.
    """

    def __init__(self, dims: ModelDimensions, rows: int, cross: Sequence[Matrix], library: Library) -> None:
        """`cross` are the layers' products from the encoded audio to keys and values [positions, 2 · width]."""
        self._dims = dims
        self._cross = cross
        self._library = library
        self._rows: list[QuantizedAudio | None] = [None] * rows
        self._table = torch.zeros(dims.decoder_layers, rows, 4, dtype=torch.int64)

    def store(self, first: int, encoded: Tensor) -> None:
        for row, one in enumerate(encoded, first):
            self._store(row, one)

    def _store(self, row: int, encoded: Tensor) -> None:
        audio = QuantizedAudio.empty(self._dims, len(encoded))
        levels = ops.quantize_rows(self._library, encoded)
        for layer, cross in enumerate(self._cross):
            product = cross.times(levels)
            ops.quantize_cross_kv(self._library, product, audio.keys[layer], audio.values[layer], audio.scales[layer])
        self._rows[row] = audio
        self._table[:, row] = torch.tensor(audio.layers())

    def move(self, source: int, target: int) -> None:
        self._rows[target] = self._rows[source]
        self._table[:, target] = self._table[:, source]

    def clear(self) -> None:
        self._rows = [None] * len(self._rows)
        self._table.zero_()

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        longest = max(audio.length for audio in self._rows[rows] if audio is not None)
        table = self._table[layer, rows]
        return ops.cross_attention(self._library, query, self._dims.decoder_heads, table, longest)
