"""Attention of the encoder over a whole window, by what is fastest on the device."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.constants import LOG2E
from transcribe.engine.cpu.library import Library

Attention = Callable[[Tensor, int], Tensor]


def fused(qkv: Tensor, heads: int) -> Tensor:
    """[length, 3 · width] → [length, width] by torch's own kernel; queries are scaled already."""
    length = len(qkv)
    q, k, v = qkv.view(1, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    mixed: Tensor = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return mixed[0].transpose(0, 1).reshape(length, -1)


def by_head(library: Library, qkv: Tensor, heads: int) -> Tensor:
    """The same in bfloat16, one head at a time: faster than `fused` on processors with bfloat16 products."""
    length = len(qkv)
    q, k, v = qkv.view(length, 3, heads, -1).permute(1, 2, 0, 3)
    mixed, sums = mix(library, *(part.to(torch.bfloat16).contiguous() for part in (q * LOG2E, k, v)))
    return (mixed.to(qkv.dtype) / sums[..., None]).transpose(0, 1).reshape(length, -1)


def mix(library: Library, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Values mixed by powers of two of their scores, bfloat16 [heads, length, size] as q, k and v are, to be divided by
    the powers' sums [heads, length]. Queries carry the factor log2(e).

    Torch's kernel for processors works in blocks too small for their products; one head's scores stay in the cache.
    """
    heads, length, _ = q.shape
    mixed, sums = torch.empty_like(q), torch.empty(heads, length)
    scores = torch.empty(length, length, dtype=torch.bfloat16)
    for head in range(heads):
        torch.mm(q[head], k[head].T, out=scores)
        ops.exponentials(library, scores, sums[head])
        torch.mm(scores, v[head], out=mixed[head])
    return mixed, sums
