"""The kernels as functions of tensors: each passes over its input once, where torch would once for every operation."""

from typing import NamedTuple

import torch
from torch import Tensor

from transcribe.engine.cpu.constants import GATES, MEDIAN, ROWS, padded
from transcribe.engine.cpu.library import Library


class QuantizedRows(NamedTuple):
    """float32 [rows, columns] as uint8, each row with a scale of its own: (levels - 128) · absmax / 127."""

    levels: Tensor
    absmax: Tensor  # [rows]: the largest magnitude of each

    @classmethod
    def empty(cls, rows: int, columns: int) -> "QuantizedRows":
        return cls(torch.empty(rows, columns, dtype=torch.uint8), torch.empty(rows))


class Product(NamedTuple):
    """The product of quantized rows and an int8 matrix: value · scale + bias."""

    value: Tensor  # float32 [rows, columns]
    scale: Tensor  # [rows]
    bias: Tensor  # [columns]

    def dequantize(self) -> Tensor:
        """As float32, in the product's memory."""
        return self.value.mul_(self.scale[:, None]).add_(self.bias)


def _tasks(rows: int) -> int:
    return -(-rows // ROWS)


def quantize_rows(library: Library, x: Tensor) -> QuantizedRows:
    """Quantizes float32 [rows, columns]."""
    rows, width = x.shape
    result = QuantizedRows.empty(rows, width)
    library.run("quantize_rows", _tasks(rows), rows, width, x, *result)
    return result


def add_layernorm_quantize(
    library: Library, x: Tensor, product: Product | None, norm: tuple[Tensor, Tensor]
) -> QuantizedRows:
    """Adds `product` to `x`, float32 [rows, columns], in place; returns the layer norm (weight, bias) of the sum."""
    rows, width = x.shape
    result = QuantizedRows.empty(rows, width)
    scratch = torch.empty(_tasks(rows), width)
    more = product or (0, 0, 0)
    library.run("add_layernorm_quantize", _tasks(rows), rows, width, x, *more, *norm, scratch, *result)
    return result


def gelu_quantize(library: Library, product: Product) -> QuantizedRows:
    """GELU of a product [rows, columns], whose memory it overwrites."""
    rows, width = product.value.shape
    result = QuantizedRows.empty(rows, width)
    library.run("gelu_quantize", _tasks(rows), rows, width, *product, *result)
    return result


def split_heads(library: Library, qkv: Product, heads: int) -> Tensor:
    """Queries times log2(e), keys and values in bfloat16 [3, heads, rows, size], of a product [rows, 3 · width]."""
    rows, width = qkv.value.shape
    size = width // 3 // heads
    result = torch.empty(3, heads, rows, size, dtype=torch.bfloat16)
    library.run("split_heads", _tasks(rows), rows, 3 * heads, heads, size, *qkv, result)
    return result


def exp2_rows(library: Library, scores: Tensor, sums: Tensor) -> None:
    """Replaces `scores`, bfloat16 [rows, columns], by two to the power of their difference from the row's largest, and
    writes each row's sum to `sums` [rows]."""
    rows, columns = scores.shape
    library.run("exp2_rows", _tasks(rows), rows, columns, scores, sums)


def merge_heads(library: Library, mixed: Tensor, sums: Tensor) -> QuantizedRows:
    """bfloat16 [heads, rows, size] divided by `sums` [heads, rows], as [rows, heads · size]."""
    heads, rows, size = mixed.shape
    result = QuantizedRows.empty(rows, heads * size)
    scratch = torch.empty(_tasks(rows), heads * size)
    library.run("merge_heads", _tasks(rows), rows, heads, size, mixed, sums, scratch, *result)
    return result


def self_attention(
    library: Library, qkv: Product, heads: int, starts: Tensor, keys: Tensor, values: Tensor
) -> QuantizedRows:
    """Causal attention of tokens [rows · count, width] to their rows' texts, whose cache gets their keys and values.

    `qkv` [rows · count, 3 · width]; the tokens of a row begin at `starts` [rows]; keys and values bfloat16 [rows,
    heads, room, size].
    """
    rows, _, room, size = keys.shape
    tokens = len(qkv.value)
    mixed, scratch = torch.empty(tokens, heads * size), torch.empty(rows, heads, room + size)
    sizes = (heads, size, tokens // rows, room)
    library.run("self_attention", rows * heads, *sizes, *qkv, starts, keys, values, scratch, mixed)
    return quantize_rows(library, mixed)


def quantize_cross_kv(library: Library, product: Product, keys: Tensor, values: Tensor, scales: Tensor) -> None:
    """Writes keys int8 [heads, size, padded], values [heads, padded, size] and their scales [2, heads, size] from a
    product [positions, 2 · heads · size]."""
    heads, size, _ = keys.shape
    library.run("quantize_cross_kv", 2 * heads, len(product.value), heads, size, *product, keys, values, scales)


def cross_attention(library: Library, query: Tensor, heads: int, table: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Attention of `query` [rows, count, width] to the audio, and its weights [rows, heads, count, padded].

    `table` [rows, 4]: the length of each row's audio, at most `longest`, and the addresses of its keys, values and
    scales, as `quantize_cross_kv` wrote them.
    """
    rows, count, width = query.shape
    weights = torch.empty(rows, heads, count, padded(longest))
    mixed = torch.empty(rows, count, width)
    sizes = (heads, width // heads, count)
    query = query.contiguous()
    library.run("cross_attention", rows * heads, *sizes, query, table, weights.shape[-1], weights, mixed)
    return mixed, weights


def best_tokens(library: Library, logits: Tensor, bias: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best tokens in two ranges of the vocabulary: their logits, the logarithm of the sum of exp over each range,
    and the tokens, [rows, 2] each.

    `logits` float32 [rows, vocabulary], `bias` [vocabulary], finite, `ranges` int64 [rows, 2, 2]: begin and end. Where
    a range is empty the first is -3e38 and the second -inf.
    """
    rows, vocabulary = logits.shape
    values, tokens = torch.empty(rows, 2, 2), torch.empty(rows, 2, dtype=torch.int64)
    library.run("best_tokens", rows, vocabulary, logits, bias, ranges, values, tokens)
    best, sums = values.unbind(-1)
    return best, best + sums.log(), tokens


def alignment_cost(library: Library, weights: Tensor) -> Tensor:
    """decode/alignment.py's `cost` of weights float32 [heads, tokens, positions], with a median of MEDIAN positions, of
    which there must be at least as many. Overwrites the weights."""
    heads, tokens, positions = weights.shape
    library.run("normalize_attention", heads, tokens, positions, weights, torch.empty(heads, 2, positions))
    costs, scratch = torch.empty(tokens, positions), torch.empty(tokens, positions + MEDIAN)
    library.run("alignment_cost", tokens, heads, tokens, positions, weights, scratch, costs)
    return costs


def warp(library: Library, costs: Tensor) -> Tensor:
    """The position at which each token begins, int64 [tokens], on the cheapest monotonic path through `costs`, float32
    [tokens, positions]."""
    tokens, positions = costs.shape
    totals = torch.empty(2, positions + 1, dtype=torch.float64)
    trace, begins = torch.empty(tokens, positions, dtype=torch.int8), torch.zeros(tokens, dtype=torch.int64)
    library.run("warp", 1, tokens, positions, costs, totals, trace, begins)
    return begins


def pack_recurrence(weight: Tensor) -> Tensor:
    """An LSTM's recurrent weight as `recurrence` reads it: float32 [4 · units, units] in torch's order of the gates,
    4 · units a multiple of GATES, as [4 · units / GATES, units, GATES]."""
    return weight.view(-1, GATES, weight.shape[1]).transpose(1, 2).contiguous()


def recurrence(library: Library, gates: Tensor, weight: Tensor, state: Tensor) -> Tensor:
    """An LSTM's outputs [frames, units], by the calling thread alone.

    `gates` float32 [frames, 4 · units]: the product of the inputs, with both biases; `weight` of `pack_recurrence`;
    `state` [2, units], what it gave last and its cells, which is changed to that after the frames.
    """
    frames, units = len(gates), state.shape[1]
    outputs, scratch = torch.empty(frames, units), torch.empty(4 * units)
    library.run("recurrence", 1, frames, units, gates, weight, state, scratch, outputs)
    return outputs
