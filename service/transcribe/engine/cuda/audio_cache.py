"""Keys and values of the encoded audio in bytes: a GPU reads half as much for every token, and has room for more rows.

Each position of a head has a scale of its own, so that what is rounded is less than half a hundredth of its largest
number. Whisper's words stay the same: performance.md has the figures.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from transcribe.engine.cuda.kernels import StepKernels
from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.config import ModelDimensions
from transcribe.engine.model.cross_attention_cache import PaddedCache


class ByteCache(PaddedCache):
    """`like` gives the device, and the dtype of queries."""

    def __init__(
        self, dims: ModelDimensions, rows: int, cross: Sequence[Linear], like: Tensor, kernels: StepKernels
    ) -> None:
        super().__init__(dims, rows, cross, like, kept=torch.int8)
        self._kernels = kernels
        self._scales = like.new_zeros(len(cross), 2, rows, dims.decoder_heads, dims.positions)
        self._first = torch.zeros(1, dtype=torch.int32, device=like.device)  # _next, where a recorded encoder reads it

    def begin_at(self, first: int) -> None:
        super().begin_at(first)
        self._first.fill_(first)

    def _keep(self, layer: int, product: Tensor) -> None:
        target = self._keys[layer], self._values[layer], self._scales[layer]
        self._kernels.keep_audio(product, target, self._first)

    def move(self, source: int, target: int) -> None:
        super().move(source, target)
        self._scales[:, :, target] = self._scales[:, :, source]

    def of_layer(self, layer: int) -> tuple[Tensor, ...]:
        return *super().of_layer(layer), self._scales[layer]

    def _parts(self, layer: int, rows: slice, longest: int) -> tuple[Tensor, Tensor]:
        scales = self._scales[layer, :, rows, :, :longest, None]
        keys, values = super()._parts(layer, rows, longest)
        return keys * scales[0], values * scales[1]
