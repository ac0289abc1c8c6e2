"""What the decoder remembers of the encoded audio, by what is fastest on the device.

A token listens to all of it in every layer, so on a processor its bytes decide how fast the decoder is.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.config import Shape


class Heard(Protocol):
    """The encoded audio of every row."""

    def listen(self, row: int, encoded: Tensor) -> None:
        """Row `row` is about this audio: [positions, width]."""

    def move(self, source: int, target: int) -> None:
        """Row `source` takes the place of row `target`."""

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        """What `query` [rows, count, width] takes from the audio in the layer `layer`: the same shape, and the weights
        [rows, heads, count, positions] that it took it by; those only of a single row."""


class Padded(Heard):
    """Keys and values of every layer, rows padded to the longest: few and large products, as GPUs and float32 want.

    `like` gives the device and the dtype; `cross` are the layers' products from the encoded audio to keys and values
    [positions, 2 · width].
    """

    def __init__(self, shape: Shape, rows: int, cross: Sequence[Linear], like: Tensor) -> None:
        self._heads = shape.decoder_heads
        self._cross = cross
        size = shape.width // shape.decoder_heads
        self._keys = like.new_zeros(len(cross), rows, self._heads, shape.positions, size)
        self._values = torch.zeros_like(self._keys)
        self._mask = like.new_zeros(rows, 1, 1, shape.positions)
        self._lengths = [0] * rows
        # oneDNN's products copy matrices that do not lie back to back: reading some silence costs less.
        self._whole = like.dtype == torch.bfloat16 and like.device.type == "cpu"

    def listen(self, row: int, encoded: Tensor) -> None:
        length = len(encoded)
        for layer, cross in enumerate(self._cross):
            keys, values = cross(encoded).view(length, 2, self._heads, -1).permute(1, 2, 0, 3).unbind(0)
            self._keys[layer, row, :, :length] = keys
            self._values[layer, row, :, :length] = values
        self._set_length(row, length)

    def _set_length(self, row: int, length: int) -> None:
        if self._lengths[row] != length:
            self._lengths[row] = length
            self._mask[row, ..., :length] = 0.0
            self._mask[row, ..., length:] = float("-inf")

    def move(self, source: int, target: int) -> None:
        length = self._lengths[source]
        self._keys[:, target, :, :length] = self._keys[:, source, :, :length]
        self._values[:, target, :, :length] = self._values[:, source, :, :length]
        self._set_length(target, length)

    def longest(self, rows: int) -> int:
        """Positions of the longest audio of the first `rows`."""
        return max(self._lengths[:rows])

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        lengths = self._lengths[rows]
        longest = self._keys.shape[3] if self._whole else max(lengths)
        mask = self._mask[rows, :, :, :longest] if min(lengths) < longest else None
        return self._attend(layer, (rows, longest), query, mask)

    def attend_within(self, layer: int, rows: slice, query: Tensor, longest: int) -> Tensor:
        """As `attend`, of the first `longest` positions: the rows' lengths decide over values, never over sizes."""
        return self._attend(layer, (rows, longest), query, self._mask[rows, :, :, :longest])[0]

    def _attend(
        self, layer: int, where: tuple[slice, int], query: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        batch, count, _ = query.shape
        rows, longest = where
        keys, values = self._keys[layer, rows, :, :longest], self._values[layer, rows, :, :longest]
        q = query.to(keys.dtype).view(batch, count, self._heads, -1).transpose(1, 2)
        scores = q @ keys.transpose(2, 3)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        mixed = (weights @ values).transpose(1, 2).reshape(batch, count, -1)
        return mixed.to(query.dtype), weights
