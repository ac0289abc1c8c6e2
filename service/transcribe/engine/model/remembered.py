"""The encoded audio in int8: keys and values of every layer, each channel in 127ths of its loudest.

A token reads all of them. In int8 they are half of what bfloat16 takes, and a kernel multiplies them as they are read;
queries, weights and sums are float32, so that only the keys and values themselves are rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.constants import padded
from transcribe.engine.cpu.int8 import Matrix
from transcribe.engine.cpu.library import Library
from transcribe.engine.model.config import Shape
from transcribe.engine.model.cross_attention_cache import Heard


@dataclass(frozen=True)
class Audio:
    """One row's."""

    length: int
    keys: Tensor  # int8 [layers, heads, size, padded]
    values: Tensor  # int8 [layers, heads, padded, size]
    scales: Tensor  # float32 [layers, 2, heads, size]: of the keys, and of the values

    @classmethod
    def empty(cls, shape: Shape, length: int) -> "Audio":
        layers, heads = shape.decoder_layers, shape.decoder_heads
        size = shape.width // heads
        places = padded(length)
        keys = torch.empty(layers, heads, size, places, dtype=torch.int8)
        values = torch.empty(layers, heads, places, size, dtype=torch.int8)
        return cls(length, keys, values, torch.empty(layers, 2, heads, size))

    def layers(self) -> list[tuple[int, int, int, int]]:
        """Length and the addresses of keys, values and scales, of each layer."""
        parts = zip(self.keys, self.values, self.scales, strict=True)
        return [(self.length, *(part.data_ptr() for part in layer)) for layer in parts]


class Remembered(Heard):
    """What the rows have heard."""

    def __init__(self, shape: Shape, rows: int, cross: Sequence[Matrix], library: Library) -> None:
        """`cross` are the layers' products from the encoded audio to keys and values [positions, 2 · width]."""
        self._shape = shape
        self._cross = cross
        self._library = library
        self._rows: list[Audio | None] = [None] * rows
        self._table = torch.zeros(shape.decoder_layers, rows, 4, dtype=torch.int64)

    def listen(self, row: int, encoded: Tensor) -> None:
        audio = Audio.empty(self._shape, len(encoded))
        levels = ops.rounded(self._library, encoded)
        for layer, cross in enumerate(self._cross):
            product = cross.times(levels)
            ops.keep_audio(self._library, product, audio.keys[layer], audio.values[layer], audio.scales[layer])
        self._rows[row] = audio
        self._table[:, row] = torch.tensor(audio.layers())

    def move(self, source: int, target: int) -> None:
        self._rows[target] = self._rows[source]
        self._table[:, target] = self._table[:, source]

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        longest = max(audio.length for audio in self._rows[rows] if audio is not None)
        table = self._table[layer, rows]
        mixed, weights = ops.listen(self._library, query, self._shape.decoder_heads, table, longest)
        return mixed, weights[..., : int(table[0, 0])]
