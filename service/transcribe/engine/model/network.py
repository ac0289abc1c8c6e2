"""Whisper's encoder and decoder: the loop over their layers is written once, for every precision and way of decoding.

What differs is handed in. A layer's matrices are functions from what they multiply to what they return: of tensors in
float, of QuantizedRows and Products in int8 (cpu/ops.py). A Stream adds and normalizes between them, and attention is a
pair of functions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.constants import LOG2E
from transcribe.engine.cpu.library import Library
from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.config import ModelDimensions
from transcribe.engine.model.cross_attention_cache import CrossAttentionCache

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
Input = TypeVar("Input")  # what a layer's matrices multiply
Output = TypeVar("Output")  # what they return
Attend = Callable[[int, Any], Any]  # attention: from a layer's number and an Output to an Input


@dataclass(frozen=True)
class Norm:
    """A layer norm: weight and bias, [width] each."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, 1e-5)


@dataclass(frozen=True)
class CrossAttention(Generic[Input, Output]):
    """The part of a decoder's layer that attends to the encoded audio."""

    norm: Norm
    query: Callable[[Input], Output]
    out: Callable[[Input], Output]


@dataclass(frozen=True)
class Layer(Generic[Input, Output]):
    """A layer of the encoder, or of the decoder where it has `cross`."""

    norm1: Norm
    qkv: Callable[[Input], Output]
    out: Callable[[Input], Output]
    cross: CrossAttention[Input, Output] | None
    norm_ffn: Norm
    fc1: Callable[[Input], Output]
    fc2: Callable[[Input], Output]


class Stream(ABC, Generic[Input, Output]):
    """The hidden states between the matrices: each layer adds to them."""

    @abstractmethod
    def add(self, output: Output) -> None: ...

    @abstractmethod
    def normalized(self, norm: Norm) -> Input: ...

    @abstractmethod
    def activated(self, output: Output) -> Input:
        """The activation of the feed-forward part; does not change the states."""

    @abstractmethod
    def result(self) -> Tensor: ...


class FloatStream(Stream[Tensor, Tensor]):
    """In the weights' own precision, one operation at a time."""

    def __init__(self, activation: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.activation, self._x = activation, x

    def add(self, output: Tensor) -> None:
        self._x = self._x + output

    def normalized(self, norm: Norm) -> Tensor:
        return norm(self._x)

    def activated(self, output: Tensor) -> Tensor:
        return self.activation(output)

    def result(self) -> Tensor:
        return self._x


@dataclass(frozen=True)
class Stack(Generic[Input, Output]):
    """All layers of a side, and the norm after them."""

    layers: tuple[Layer[Input, Output], ...]
    norm: Norm
    stream: Callable[[Tensor], Stream[Input, Output]]

    def __call__(self, x: Tensor, attend: Attend, attend_audio: Attend | None = None) -> Tensor:
        """[..., width], as it is returned. `attend` gets a layer's queries, keys and values side by side,
        `attend_audio` only queries. May change `x`."""
        return finish(self.by_layers(x, attend, attend_audio))

    def by_layers(self, x: Tensor, attend: Attend, attend_audio: Attend | None = None) -> Generator[None, None, Tensor]:
        """The same, with a stop after each layer."""
        stream = self.stream(x)
        for index, layer in enumerate(self.layers):
            stream.add(layer.out(attend(index, layer.qkv(stream.normalized(layer.norm1)))))
            if layer.cross is not None and attend_audio is not None:
                query = layer.cross.query(stream.normalized(layer.cross.norm))
                stream.add(layer.cross.out(attend_audio(index, query)))
            stream.add(layer.fc2(stream.activated(layer.fc1(stream.normalized(layer.norm_ffn)))))
            yield
        return self.norm(stream.result())


def finish(stages: Generator[None, None, Tensor]) -> Tensor:
    """What they return at the end."""
    while True:
        try:
            next(stages)
        except StopIteration as end:
            result: Tensor = end.value
            return result


@dataclass(frozen=True)
class Encoder:
    """From log-mel to the states that the decoder attends to."""

    convolutions: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
    positions: Tensor
    layers: Stack[Any, Any]
    attend: Callable[[Any], Any]  # over whole windows
    at_once: bool  # whether `attend` takes several windows

    def __call__(self, mel: Tensor) -> Tensor:
        """[windows, bands, frames] → [windows, ceil(frames / 2), width]; `frames` ≤ a full window."""
        return finish(self.by_layers(mel))

    def by_layers(self, mel: Tensor) -> Generator[None, None, Tensor]:
        """The same, with a stop after each layer, so that something else can be done there."""
        first, second = self.convolutions
        x = second(first(mel)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        if self.at_once:
            return (yield from self._encode(x))
        windows = []
        for window in x:
            windows.append((yield from self._encode(window)))
        return torch.stack(windows)

    def _encode(self, x: Tensor) -> Generator[None, None, Tensor]:
        return self.layers.by_layers(x, lambda _, qkv: self.attend(qkv))


def attend_fused(heads: int, qkv: Tensor) -> Tensor:
    """[…, length, 3 · width] → […, length, width] by torch's own kernel; queries are scaled already."""
    *_, length, width = qkv.shape
    q, k, v = qkv.view(-1, length, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)
    mixed: Tensor = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return mixed.transpose(1, 2).reshape(*qkv.shape[:-1], -1)


def attend_by_head(library: Library, heads: int, qkv: Tensor) -> Tensor:
    """The same in bfloat16, one head at a time: faster than torch's on processors with bfloat16 products."""
    length = len(qkv)
    q, k, v = qkv.view(length, 3, heads, -1).permute(1, 2, 0, 3)
    mixed, sums = mix_heads(library, *(part.to(torch.bfloat16).contiguous() for part in (q * LOG2E, k, v)))
    return (mixed.to(qkv.dtype) / sums[..., None]).transpose(0, 1).reshape(length, -1)


def mix_heads(library: Library, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention before its division: values weighted by two to the power of their scores, bfloat16 [heads, length,
    size] as q, k and v are, and what to divide them by, [heads, length]. Queries carry the factor log2(e).

    One head's scores stay in the processor's cache; torch's kernel works in blocks too small for the products.
    """
    heads, length, _ = q.shape
    mixed, sums = torch.empty_like(q), torch.empty(heads, length)
    scores = torch.empty(length, length, dtype=torch.bfloat16)
    for head in range(heads):
        torch.mm(q[head], k[head].T, out=scores)
        ops.exp2_rows(library, scores, sums[head])
        torch.mm(scores, v[head], out=mixed[head])
    return mixed, sums


class Cache:
    """The decoder's cache for the rows of a batch: keys and values of their tokens, and `cross` of their audio.

    The tokens' part grows in steps, so that short texts cost little memory.
    """

    STEP = 64  # tokens

    def __init__(self, dims: ModelDimensions, rows: int, like: Tensor, cross: CrossAttentionCache) -> None:
        """`like` gives the device and the dtype of the tokens' part."""
        self._context = dims.context
        size = dims.width // dims.decoder_heads
        self.keys = like.new_zeros(dims.decoder_layers, rows, dims.decoder_heads, 0, size)
        self.values = self.keys.clone()
        self.cross = cross

    def reserve(self, tokens: int) -> None:
        """Makes room for `tokens` tokens in every row."""
        have = self.keys.shape[3]
        if tokens > have:
            more = min(-(-tokens // self.STEP) * self.STEP, self._context) - have
            self.keys = F.pad(self.keys, (0, 0, 0, more))
            self.values = F.pad(self.values, (0, 0, 0, more))

    def clear(self) -> None:
        """Gives up the memory of all rows, of which none is in use."""
        self.keys, self.values = (part[:, :, :, :0].clone() for part in (self.keys, self.values))
        self.cross.clear()

    def move(self, source: int, target: int) -> None:
        """Copies row `source` to row `target`."""
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]
        self.cross.move(source, target)


@dataclass(frozen=True)
class Step:
    """What the attention of one call of the decoder works on: rows of a cache, and where their tokens stand.

    `heed`, where there is one, gets each layer's number and weights over the audio [rows, heads, count, positions].
    """

    cache: Cache
    rows: slice
    places: Tensor  # int64 [rows, count]
    heed: Callable[[int, Tensor], None] | None

    def attend_audio(self, layer: int, query: Tensor) -> Tensor:
        """[rows, count, width], as it is returned."""
        mixed, weights = self.cache.cross.attend(layer, self.rows, query)
        if self.heed is not None:
            self.heed(layer, weights)
        return mixed


def float_attention(heads: int, step: Step) -> tuple[Attend, Attend]:
    """The decoder's attentions by torch's operations, rows padded to the longest text."""
    cache, rows, places = step.cache, step.rows, step.places
    ahead = torch.arange(int(places.max()) + 1, device=places.device) > places[:, None, :, None]
    mask = torch.zeros(ahead.shape, dtype=cache.keys.dtype, device=places.device)
    mask.masked_fill_(ahead, float("-inf"))

    def attend(layer: int, qkv: Tensor) -> Tensor:
        return attend_text(heads, qkv, cache.keys[layer, rows], cache.values[layer, rows], (places, mask))

    return attend, step.attend_audio


def attend_text(heads: int, qkv: Tensor, keys: Tensor, values: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
    """[rows, count, 3 · width] → [rows, count, width]: tokens attend to their row's text.

    `where` are the tokens' places in it [rows, count], at which their keys and values are kept, and the mask [rows, 1,
    count, length] of the first `length` tokens. keys, values: [rows, heads, room, size].
    """
    places, mask = where
    batch, count, _ = qkv.shape
    q, k, v = qkv.view(batch, count, 3, heads, -1).unbind(2)
    row = torch.arange(batch, device=qkv.device)[:, None]
    keys[row, :, places] = k
    values[row, :, places] = v
    length = mask.shape[-1]
    scores = q.transpose(1, 2) @ keys[:, :, :length].transpose(2, 3)
    weights = torch.softmax(scores + mask, dim=-1)
    return (weights @ values[:, :, :length]).transpose(1, 2).reshape(batch, count, -1)


@dataclass(frozen=True)
class Decoder:
    """From tokens to hidden states, for rows of a cache."""

    dims: ModelDimensions
    embed: Linear  # from token ids
    positions: Tensor
    layers: Stack[Any, Any]
    head: Linear
    cross_kv: Sequence[Linear]  # each layer's, from the encoded audio to keys and values [positions, 2 · width]
    attention: Callable[[int, Step], tuple[Attend, Attend]]  # of so many heads: to the text, and to the audio
    cache_dtype: torch.dtype  # of the text's keys and values
    library: Library | None  # the processor's kernels, where int8 uses them
    head_weight: Tensor | None = None  # [vocabulary, width], where the head is in float

    def __call__(
        self,
        cache: Cache,
        rows: slice,
        tokens: Tensor,
        starts: Tensor,
        heed: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Hidden states [rows, count, width] of `tokens` [rows, count] that begin at positions `starts` [rows].

        The cache must have room for them. `heed` is Step's.
        """
        places = starts[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        attentions = self.attention(self.dims.decoder_heads, Step(cache, rows, places, heed))
        return self.layers(self.embed(tokens) + self.positions[places], *attentions)
