"""The encoded audio in int8, one copy for all layers of the decoder.

Keys are the audio times a matrix, so a query times that matrix can meet the audio itself: scores = (q · K) · audio, and
what is taken from it becomes values afterwards. All heads of a row then share one product over the audio. It multiplies
as often as there are heads more than keys and values in a cache would, but reads a twelfth of the bytes where there are
six layers, and nothing has to be made of the audio before the first token. (DeepSeek-V2 calls this absorbing the
projections, arXiv:2405.04434, 2.1.2.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import int8
from .heard import Heard
from .spec import Shape
from .weights import Linear

LEVELS = 255  # of uint8


@dataclass(frozen=True)
class Audio:
    """One row's: it gives the scores of each position, and takes what the weights of the positions say."""

    length: int
    score: Linear
    take: Linear

    @classmethod
    def of(cls, encoded: Tensor) -> "Audio":
        """Each position has a scale for the scores, each channel one for what is taken."""
        levels, scale = int8.quantized(encoded)
        channels, channel_scale = int8.quantized(encoded.T.contiguous())
        score = int8.product(levels, scale / int8.LEVELS)
        return cls(len(encoded), score, int8.product(channels, channel_scale / LEVELS, zero=0))


class Shared(Heard):
    """In int8; a query and the weights are rounded to 8 and 16 bits for each product."""

    def __init__(self, shape: Shape, rows: int, cross: Sequence[tuple[Tensor, Tensor]]) -> None:
        """`cross` are weight [2 · width, width] and bias [2 · width] of each layer's keys and values; the keys have no
        bias: it would add the same to the scores of all positions."""
        self._heads = shape.decoder_heads
        parts = [weight.view(2, self._heads, -1, shape.width).unbind(0) for weight, _ in cross]
        self._keys = [keys.contiguous() for keys, _ in parts]
        self._values = [values.transpose(1, 2).contiguous() for _, values in parts]
        self._bias = [bias[shape.width :].float() for _, bias in cross]
        self._rows: list[Audio | None] = [None] * rows

    def listen(self, row: int, encoded: Tensor) -> None:
        self._rows[row] = Audio.of(encoded)

    def move(self, source: int, target: int) -> None:
        self._rows[target] = self._rows[source]

    def attend(self, layer: int, rows: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, width = query.shape
        heard = [audio for audio in self._rows[rows] if audio is not None]
        keys, values = self._keys[layer], self._values[layer]
        heads = query.to(keys.dtype).view(batch * count, self._heads, -1).transpose(0, 1).contiguous()
        asked = torch.bmm(heads, keys).float().transpose(0, 1).reshape(batch, count * self._heads, width)
        weights = torch.softmax(self._scores(heard, asked), -1)
        taken = self._taken(heard, weights).view(batch * count, self._heads, width).transpose(0, 1)
        mixed = torch.bmm(taken.to(values.dtype).contiguous(), values).transpose(0, 1).reshape(query.shape)
        told = weights[:1].view(1, count, self._heads, -1).transpose(1, 2)
        return mixed.float().add_(self._bias[layer]), told

    @staticmethod
    def _scores(heard: Sequence[Audio], asked: Tensor) -> Tensor:
        """[rows, queries, longest], -inf behind a row's end."""
        loudest = int8.largest(asked)
        narrow = int8.unsigned(asked * (int8.LEVELS / loudest))
        scores = asked.new_full((*asked.shape[:2], max(audio.length for audio in heard)), float("-inf"))
        for row, audio in enumerate(heard):
            torch.mul(audio.score(narrow[row]), loudest[row], out=scores[row, :, : audio.length])
        return scores

    @staticmethod
    def _taken(heard: Sequence[Audio], weights: Tensor) -> Tensor:
        """[rows, queries, width]. The weights of many positions are far below the largest, and count together: so each
        is told in 255ths of the largest, and what is left in 255ths of those."""
        largest = weights.amax(-1, keepdim=True)
        scaled = weights * (LEVELS / largest)
        coarse = scaled.floor()
        fine = scaled.sub_(coarse).mul_(LEVELS)
        narrow = int8.unsigned(torch.cat([coarse, fine], 1).sub_(int8.ZERO))
        taken = torch.stack([audio.take(narrow[row, :, : audio.length]) for row, audio in enumerate(heard)])
        coarse, fine = taken.chunk(2, 1)
        return torch.add(coarse, fine, alpha=1 / LEVELS).mul_(largest)
