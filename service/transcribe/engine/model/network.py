"""Whisper's encoder and decoder as plain functions of tensors, over caches that belong to the caller."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cpu.library import Library
from transcribe.engine.model.attention import Attention
from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.config import Shape
from transcribe.engine.model.cross_attention_cache import Heard

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


@dataclass(frozen=True)
class Norm:
    weight: Tensor
    bias: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Weight and bias, [width] each."""
        return self.weight, self.bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, 1e-5)


@dataclass(frozen=True)
class EncoderLayer:
    norm1: Norm
    qkv: Linear
    out: Linear
    norm_ffn: Norm
    fc1: Linear  # with the activation
    fc2: Linear


@dataclass(frozen=True)
class EncoderLayers:
    """All layers, and the norm after them."""

    layers: tuple[EncoderLayer, ...]
    norm: Norm
    heads: int
    attend: Attention

    def __call__(self, x: Tensor) -> Tensor:
        """[length, width], as it is returned."""
        for layer in self.layers:
            x = x + layer.out(self.attend(layer.qkv(layer.norm1(x)), self.heads))
            x = x + layer.fc2(layer.fc1(layer.norm_ffn(x)))
        return self.norm(x)


@dataclass(frozen=True)
class DecoderLayer:
    norm1: Norm
    qkv: Linear
    out: Linear
    norm_cross: Norm
    query: Linear
    cross: Linear  # keys and values of the encoded audio
    cross_out: Linear
    norm_ffn: Norm
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True)
class Encoder:
    """From log-mel to the states that the decoder listens to."""

    convolutions: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
    positions: Tensor
    layers: Callable[[Tensor], Tensor]

    def __call__(self, mel: Tensor) -> Tensor:
        """[bands, frames] → [ceil(frames / 2), width]; `frames` ≤ a full window."""
        first, second = self.convolutions
        x = second(first(mel[None]))[0].T
        return self.layers(x + self.positions[: len(x)])


class Cache:
    """What the decoder remembers of `rows` chunks: keys and values of tokens, and of the encoded audio in `heard`.

    `tokens` grows in steps, so that short texts cost little memory.
    """

    STEP = 64  # tokens

    def __init__(self, shape: Shape, rows: int, like: Tensor, heard: Heard) -> None:
        """`like` gives the device and the dtype of the text's part."""
        self._context = shape.context
        size = shape.width // shape.decoder_heads
        self.keys = like.new_zeros(shape.decoder_layers, rows, shape.decoder_heads, 0, size)
        self.values = self.keys.clone()
        self.heard = heard

    def reserve(self, tokens: int) -> None:
        """Makes room for `tokens` tokens in every row."""
        have = self.keys.shape[3]
        if tokens > have:
            more = min(-(-tokens // self.STEP) * self.STEP, self._context) - have
            self.keys = F.pad(self.keys, (0, 0, 0, more))
            self.values = F.pad(self.values, (0, 0, 0, more))

    def move(self, source: int, target: int) -> None:
        """Row `source` takes the place of row `target`."""
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]
        self.heard.move(source, target)


@dataclass(frozen=True)
class Decoder:
    """From tokens to hidden states, for rows of a cache."""

    shape: Shape
    embed: Linear  # from token ids
    positions: Tensor
    layers: tuple[DecoderLayer, ...]
    norm: Norm
    head: Linear

    @property
    def remembers(self) -> torch.dtype:
        """What the keys and values of the text are kept in."""
        return self.positions.dtype

    @property
    def kernels(self) -> Library | None:
        """A processor's own, where it has them."""
        return None

    @property
    def crosses(self) -> list[Linear]:
        """Each layer's products from the encoded audio to keys and values [positions, 2 · width]."""
        return [layer.cross for layer in self.layers]

    def __call__(
        self, cache: Cache, rows: slice, tokens: Tensor, starts: Tensor, attentions: list[Tensor] | None = None
    ) -> Tensor:
        """Hidden states [rows, count, width] of `tokens` [rows, count] that begin at positions `starts` [rows].

        The cache must have room for them. `attentions` collects each layer's weights over the audio
        [rows, heads, count, positions]; only of a single row.
        """
        places = starts[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        return self.norm(self._layers(self.embed(tokens) + self.positions[places], cache, rows, places, attentions))

    def _layers(self, x: Tensor, cache: Cache, rows: slice, places: Tensor, attentions: list[Tensor] | None) -> Tensor:
        length = int(places.max()) + 1
        ahead = torch.arange(length, device=x.device) > places[:, None, :, None]
        mask = torch.zeros(ahead.shape, dtype=x.dtype, device=x.device).masked_fill_(ahead, float("-inf"))
        for index, layer in enumerate(self.layers):
            x = x + layer.out(self._attend_text(layer.qkv(layer.norm1(x)), cache, index, rows, (places, mask)))
            mixed, weights = cache.heard.attend(index, rows, layer.query(layer.norm_cross(x)))
            x = x + layer.cross_out(mixed)
            x = x + layer.fc2(layer.fc1(layer.norm_ffn(x)))
            if attentions is not None:
                attentions.append(weights)
        return x

    def _attend_text(self, qkv: Tensor, cache: Cache, index: int, rows: slice, where: tuple[Tensor, Tensor]) -> Tensor:
        places, mask = where
        batch, count, _ = qkv.shape
        q, k, v = qkv.view(batch, count, 3, self.shape.decoder_heads, -1).unbind(2)
        keys, values = cache.keys[index, rows], cache.values[index, rows]
        row = torch.arange(batch, device=qkv.device)[:, None]
        keys[row, :, places] = k
        values[row, :, places] = v
        length = mask.shape[-1]
        scores = q.transpose(1, 2) @ keys[:, :, :length].transpose(2, 3)
        weights = torch.softmax(scores + mask, dim=-1)
        return (weights @ values[:, :, :length]).transpose(1, 2).reshape(batch, count, -1)
