"""What the decoder remembers of the encoded audio: keys and values of every row, by what is fastest on the device.

A token reads all of it in every layer, so on a processor its bytes decide how fast the decoder is.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from .spec import Shape

LEVELS = 127  # of int8, on either side of zero
GROUP = 4  # heads that share a product: it takes as many inputs in the time of one
BLOCK = 32  # positions that the int8 product takes at a time: it reads beyond what is no multiple of them
SMALLEST = 1e-9  # keeps silence from being divided by zero


class Heard(Protocol):
    """Keys and values of the encoded audio, for each layer and row."""

    def put(self, layer: int, row: int, keys_values: Tensor) -> None:
        """Row `row` is about this audio: [positions, 2 · width], keys before values, in the layer `layer`."""

    def move(self, source: int, target: int) -> None:
        """Row `source` takes the place of row `target`."""

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        """What `query` [rows, count, width] takes from the audio: the same shape, and the weights
        [rows, heads, count, positions] that it took it by; those only of a single row."""


class Padded(Heard):
    """In one tensor, rows padded to the longest: few and large products, as GPUs and float32 want them."""

    def __init__(self, shape: Shape, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self._heads = shape.decoder_heads
        size = shape.width // shape.decoder_heads
        self._keys = torch.zeros(
            shape.decoder_layers, rows, self._heads, shape.positions, size, dtype=dtype, device=device
        )
        self._values = torch.zeros_like(self._keys)
        self._mask = torch.zeros(rows, 1, 1, shape.positions, dtype=dtype, device=device)
        self._lengths = [0] * rows

    def put(self, layer: int, row: int, keys_values: Tensor) -> None:
        length = len(keys_values)
        keys, values = keys_values.view(length, 2, self._heads, -1).permute(1, 2, 0, 3).unbind(0)
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

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, _ = query.shape
        lengths = self._lengths[rows]
        longest = max(lengths)
        keys, values = self._keys[layer, rows, :, :longest], self._values[layer, rows, :, :longest]
        q = query.to(keys.dtype).view(batch, count, self._heads, -1).transpose(1, 2)
        scores = q @ keys.transpose(2, 3)
        if min(lengths) < longest:
            scores = scores + self._mask[rows, :, :, :longest]
        weights = torch.softmax(scores, dim=-1)
        mixed = (weights @ values).transpose(1, 2).reshape(batch, count, -1)
        return mixed.to(query.dtype), weights


class Compact(Heard):
    """In int8, each row as long as its audio: a quarter of float32's bytes.

    The product (torch's kernel for int8 weights: it reads int8, computes in bfloat16 and float32) takes up to GROUP
    inputs in the time of one, so the queries of as many heads share a call, each with zeros where the others' keys lie.
    A position has a scale in each group, and so has each channel of the values.
    """

    def __init__(self, shape: Shape, rows: int) -> None:
        self._heads = shape.decoder_heads
        self._group = math.gcd(shape.decoder_heads, GROUP)
        self._lengths = [0] * rows
        self._rows: list[list[Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]]] = [
            [() for _ in range(rows)] for _ in range(shape.decoder_layers)
        ]

    @staticmethod
    def suits(shape: Shape) -> bool:
        """Whether the model's heads are of a size that the product can take: those of every published Whisper are."""
        return shape.width // shape.decoder_heads % BLOCK == 0

    def put(self, layer: int, row: int, keys_values: Tensor) -> None:
        self._lengths[row] = len(keys_values)
        whole = F.pad(keys_values, (0, 0, 0, -len(keys_values) % BLOCK))
        parts = whole.view(len(whole), 2, self._heads // self._group, -1).permute(1, 2, 0, 3)
        keys, key_scales = _narrow(parts[0].contiguous())
        values, value_scales = _narrow(parts[1].transpose(1, 2).contiguous())
        self._rows[layer][row] = list(zip(keys, key_scales, values, value_scales, strict=True))

    def move(self, source: int, target: int) -> None:
        for rows in self._rows:
            rows[target] = rows[source]
        self._lengths[target] = self._lengths[source]

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        # A product takes some 40 us: threads that share so little wait for each other longer than they work as soon as
        # anything else runs on the machine.
        with _one_thread():
            return self._attend(layer, rows, query)

    def _attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, width = query.shape
        groups, group = self._heads // self._group, self._group
        heads = query.bfloat16().view(batch, count, groups, group, -1).permute(0, 2, 1, 4, 3)
        apart = heads.new_zeros(batch, groups, group, count, group, width // self._heads)
        apart.diagonal(dim1=2, dim2=4).copy_(heads)
        product = torch._weight_int8pack_mm
        outputs, weights = [], []
        queries = apart.view(batch, groups, group * count, -1)
        for row, parts, length in zip(queries, self._rows[layer][rows], self._lengths[rows], strict=True):
            scores = torch.stack([product(q, part[0], part[1]) for q, part in zip(row, parts, strict=True)])
            scores[..., length:] = float("-inf")
            weights.append(torch.softmax(scores, -1))
            outputs += [product(w, part[2], part[3]) for w, part in zip(weights[-1], parts, strict=True)]
        mixed = torch.stack(outputs).view(apart.shape).diagonal(dim1=2, dim2=4).permute(0, 2, 1, 4, 3)
        told = weights[0].view(1, self._heads, count, -1) if batch == 1 else weights[0].new_empty(0)
        return mixed.reshape(query.shape).to(query.dtype), told


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _narrow(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [..., n, m] and the scale of each row [..., n] in bfloat16."""
    scales = (torch.maximum(matrices.amax(-1), -matrices.amin(-1)).clamp_(min=SMALLEST) / LEVELS).bfloat16()
    return (matrices / scales.float()[..., None]).round_().clamp_(-LEVELS, LEVELS).to(torch.int8), scales
