"""The kernels as functions of tensors: each passes over its input once, where torch would for every operation."""

from typing import NamedTuple

import torch
from torch import Tensor

from transcribe.engine.cpu.constants import ROWS, padded
from transcribe.engine.cpu.library import Library


class Levels(NamedTuple):
    """float32 [rows, columns] as uint8: (levels - 128) · loudest / 127."""

    levels: Tensor
    loudest: Tensor  # [rows]

    @classmethod
    def empty(cls, rows: int, columns: int) -> "Levels":
        return cls(torch.empty(rows, columns, dtype=torch.uint8), torch.empty(rows))


class Product(NamedTuple):
    """What an int8 matrix makes of levels: value · scale + bias."""

    value: Tensor  # float32 [rows, columns]
    scale: Tensor  # [rows]
    bias: Tensor  # [columns]

    def wide(self) -> Tensor:
        """As float32, in the product's memory."""
        return self.value.mul_(self.scale[:, None]).add_(self.bias)


def _tasks(rows: int) -> int:
    return -(-rows // ROWS)


def rounded(library: Library, x: Tensor) -> Levels:
    """float32 [rows, columns], each row by its loudest."""
    rows, width = x.shape
    result = Levels.empty(rows, width)
    library.run("round_rows", _tasks(rows), rows, width, x, *result)
    return result


def added_and_normalized(library: Library, x: Tensor, product: Product | None, norm: tuple[Tensor, Tensor]) -> Levels:
    """Adds `product` to `x`, float32 [rows, columns], in its place; returns the layer norm (weight, bias) of that."""
    rows, width = x.shape
    result = Levels.empty(rows, width)
    scratch = torch.empty(_tasks(rows), width)
    more = product or (0, 0, 0)
    library.run("add_and_normalize", _tasks(rows), rows, width, x, *more, *norm, scratch, *result)
    return result


def activated(library: Library, product: Product) -> Levels:
    """GELU of a product [rows, columns], whose memory it uses."""
    rows, width = product.value.shape
    result = Levels.empty(rows, width)
    library.run("activate", _tasks(rows), rows, width, *product, *result)
    return result


def split_heads(library: Library, qkv: Product, heads: int) -> Tensor:
    """Queries times log2(e), keys and values in bfloat16 [3, heads, rows, size], of a product [rows, 3 · width]."""
    rows, width = qkv.value.shape
    size = width // 3 // heads
    result = torch.empty(3, heads, rows, size, dtype=torch.bfloat16)
    library.run("split_heads", _tasks(rows), rows, 3 * heads, heads, size, *qkv, result)
    return result


def exponentials(library: Library, scores: Tensor, sums: Tensor) -> None:
    """Two to the `scores`, bfloat16 [rows, columns], in their place, each row divided by its largest; writes the rows'
    `sums` [rows]."""
    rows, columns = scores.shape
    library.run("exponentials", _tasks(rows), rows, columns, scores, sums)


def merge_heads(library: Library, mixed: Tensor, sums: Tensor) -> Levels:
    """bfloat16 [heads, rows, size] divided by `sums` [heads, rows], heads side by side."""
    heads, rows, size = mixed.shape
    result = Levels.empty(rows, heads * size)
    scratch = torch.empty(_tasks(rows), heads * size)
    library.run("merge_heads", _tasks(rows), rows, heads, size, mixed, sums, scratch, *result)
    return result


def attended_text(library: Library, qkv: Product, heads: int, starts: Tensor, keys: Tensor, values: Tensor) -> Levels:
    """What tokens take from their rows' texts up to themselves; their own keys and values are added to those.

    `qkv` [rows · count, 3 · width]; the tokens of a row begin at `starts` [rows]; keys and values bfloat16 [rows,
    heads, room, size].
    """
    rows, _, room, size = keys.shape
    tokens = len(qkv.value)
    mixed, scratch = torch.empty(tokens, heads * size), torch.empty(rows, heads, room + size)
    sizes = (heads, size, tokens // rows, room)
    library.run("attend_text", rows * heads, *sizes, *qkv, starts, keys, values, scratch, mixed)
    return rounded(library, mixed)


def keep_audio(library: Library, product: Product, keys: Tensor, values: Tensor, scales: Tensor) -> None:
    """Keys int8 [heads, size, padded], values [heads, padded, size] and their scales [2, heads, size] of a product
    [positions, 2 · heads · size]."""
    heads, size, _ = keys.shape
    library.run("keep_audio", 2 * heads, len(product.value), heads, size, *product, keys, values, scales)


def listen(library: Library, query: Tensor, heads: int, table: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """What `query` [rows, count, width] takes from audio, and its weights [rows, heads, count, padded].

    `table` [rows, 4]: the length of each row's audio, at most `longest`, and the addresses of its keys, values and
    scales, as `keep_audio` wrote them.
    """
    rows, count, width = query.shape
    weights = torch.empty(rows, heads, count, padded(longest))
    mixed = torch.empty(rows, count, width)
    sizes = (heads, width // heads, count)
    query = query.contiguous()
    library.run("listen", rows * heads, *sizes, query, table, weights.shape[-1], weights, mixed)
    return mixed, weights


def best_tokens(library: Library, logits: Tensor, bias: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best tokens in two ranges of the vocabulary: their logits, the logarithm of the sum of the powers of e over
    each range, and the tokens, [rows, 2] each.

    `logits` float32 [rows, vocabulary], `bias` [vocabulary], finite, `ranges` int64 [rows, 2, 2]: begin and end. Where
    a range is empty the first is -3e38 and the second -inf.
    """
    rows, vocabulary = logits.shape
    values, tokens = torch.empty(rows, 2, 2), torch.empty(rows, 2, dtype=torch.int64)
    library.run("best_tokens", rows, vocabulary, logits, bias, ranges, values, tokens)
    best, sums = values.unbind(-1)
    return best, best + sums.log(), tokens
