"""Both networks with int8 matrices: between two of their products, memory is passed over once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.int8 import Matrix
from transcribe.engine.cpu.library import Library
from transcribe.engine.cpu.ops import Levels, Product
from transcribe.engine.model import attention
from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.network import Cache, Decoder, Norm


@dataclass(frozen=True)
class NarrowLayer:
    norm1: Norm
    qkv: Matrix
    out: Matrix
    norm_ffn: Norm
    fc1: Matrix  # its activation is GELU
    fc2: Matrix


@dataclass(frozen=True)
class NarrowLayers:
    """What `network.EncoderLayers` is, in float32 between the products."""

    library: Library
    layers: Sequence[NarrowLayer]
    norm: Norm
    heads: int
    bfloat16: bool  # whether the processor multiplies it, for the attention

    def __call__(self, x: Tensor) -> Tensor:
        """[length, width], as it is returned. Changes `x`."""
        x = x.contiguous()
        more: Product | None = None
        for layer in self.layers:
            heard = self._added(x, more, layer.norm1)
            more = layer.out.times(self._attended(layer.qkv.times(heard)))
            heard = self._added(x, more, layer.norm_ffn)
            heard = ops.activated(self.library, layer.fc1.times(heard))
            more = layer.fc2.times(heard)
        return self.norm(x if more is None else x.add_(more.wide()))

    def _added(self, x: Tensor, more: Product | None, norm: Norm) -> Levels:
        return ops.added_and_normalized(self.library, x, more, norm.parts)

    def _attended(self, qkv: Product) -> Levels:
        if not self.bfloat16:
            return ops.rounded(self.library, attention.fused(qkv.wide(), self.heads))
        mixed, sums = attention.mix(self.library, *ops.split_heads(self.library, qkv, self.heads).unbind(0))
        return ops.merge_heads(self.library, mixed, sums)


@dataclass(frozen=True)
class NarrowDecoderLayer:
    norm1: Norm
    qkv: Matrix
    out: Matrix
    norm_cross: Norm
    query: Matrix
    cross: Matrix
    cross_out: Matrix
    norm_ffn: Norm
    fc1: Matrix  # its activation is GELU
    fc2: Matrix


@dataclass(frozen=True)
class NarrowDecoder(Decoder):
    """The decoder, with few calls for a token: they cost more than what they compute."""

    library: Library
    narrow: tuple[NarrowDecoderLayer, ...]  # instead of `layers`, of which there are none

    @property
    def remembers(self) -> torch.dtype:
        return torch.bfloat16

    @property
    def kernels(self) -> Library:
        return self.library

    @property
    def crosses(self) -> list[Linear]:
        return [layer.cross for layer in self.narrow]

    def _layers(self, x: Tensor, cache: Cache, rows: slice, places: Tensor, attentions: list[Tensor] | None) -> Tensor:
        shape, library = x.shape, self.library
        heads, starts = self.shape.decoder_heads, places[:, 0].contiguous()
        x = x.view(-1, shape[-1])
        more: Product | None = None
        for index, layer in enumerate(self.narrow):
            told = ops.added_and_normalized(library, x, more, layer.norm1.parts)
            text = (starts, cache.keys[index, rows], cache.values[index, rows])
            told = ops.attended_text(library, layer.qkv.times(told), heads, *text)
            told = ops.added_and_normalized(library, x, layer.out.times(told), layer.norm_cross.parts)
            query = layer.query.times(told).wide().view(shape)
            mixed, weights = cache.heard.attend(index, rows, query)
            told = ops.rounded(library, mixed.view(-1, shape[-1]))
            told = ops.added_and_normalized(library, x, layer.cross_out.times(told), layer.norm_ffn.parts)
            told = ops.activated(library, layer.fc1.times(told))
            more = layer.fc2.times(told)
            if attentions is not None:
                attentions.append(weights)
        return (x if more is None else x.add_(more.wide())).view(shape)
