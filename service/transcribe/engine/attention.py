"""Attention of the encoder over a whole window, by what is fastest on the device."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

Attention = Callable[[Tensor, int], Tensor]


def fused(qkv: Tensor, heads: int) -> Tensor:
    """[length, 3 · width] → [length, width] by torch's own kernel; queries are scaled already."""
    length = len(qkv)
    q, k, v = qkv.view(1, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    mixed: Tensor = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return mixed[0].transpose(0, 1).reshape(length, -1)


def by_head(qkv: Tensor, heads: int) -> Tensor:
    """The same in bfloat16, one head at a time: twice as fast as `fused` on processors with bfloat16 products.

    Torch's kernel for processors works in blocks too small for them; one head's scores stay in the cache.
    """
    length, width = len(qkv), qkv.shape[1] // 3
    q, k, v = qkv.view(length, 3, heads, -1).permute(1, 2, 0, 3).to(torch.bfloat16).contiguous()
    mixed = torch.empty(heads, length, width // heads, dtype=torch.bfloat16)
    scores = torch.empty(length, length, dtype=torch.bfloat16)
    for head in range(heads):
        torch.mm(q[head], k[head].T, out=scores)
        torch.softmax(scores, -1, out=scores)
        torch.mm(scores, v[head], out=mixed[head])
    return mixed.transpose(0, 1).reshape(length, width).to(qkv.dtype)
