"""Matrices in the precision that suits the processor."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from . import int8
from .weights import Linear, Weights

INT8, BFLOAT16, FLOAT16, FLOAT32 = "int8", "bfloat16", "float16", "float32"
DTYPES: Mapping[str, torch.dtype] = {BFLOAT16: torch.bfloat16, FLOAT16: torch.float16, FLOAT32: torch.float32}


def float_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """A linear layer in the matrix' own dtype; input and output are in the input's."""
    dtype = weight.dtype
    narrow = None if bias is None else bias.to(dtype)

    def apply(x: Tensor) -> Tensor:
        return F.linear(x.to(dtype), weight, narrow).to(x.dtype)

    return apply


def linear(weights: Weights, name: str) -> Linear:
    """The linear layer `name`: int8 when its scales are among the weights."""
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    scale = weights.get(f"{name}.scale")
    if scale is not None:
        few = name.startswith("decoder.") and not name.endswith(".cross")
        return int8.linear(weight, scale, bias, few=few)
    return float_linear(weight, bias)


def embedding(weights: Weights, name: str) -> Linear:
    """From token ids to the rows of a matrix, in the dtype of what is no matrix."""
    weight, scale = weights[f"{name}.weight"], weights.get(f"{name}.scale")
    wide = weights["decoder.positions"].dtype
    if scale is None:
        return lambda ids: weight[ids].to(wide)
    return lambda ids: weight[ids] * scale[ids][..., None]


def convert(weights: Weights, kinds: Mapping[str, str], wide: torch.dtype) -> Weights:
    """`weights` with the matrices of "encoder" and "decoder" in their kinds, and all else in `wide`; "cross" are the
    decoder's that make keys and values of the encoded audio.

    Empties `weights` on its way, so that the two are never in memory together.
    """
    result: Weights = {}
    for name in list(weights):
        tensor = weights.pop(name)
        kind = kinds["cross" if name.endswith(".cross.weight") else name.split(".", 1)[0]]
        if not name.endswith(".weight") or tensor.ndim == 1:
            result[name] = tensor.to(wide)
        elif kind == INT8 and tensor.ndim == 2:
            result[name], result[name.replace(".weight", ".scale")] = int8.quantized(tensor)
        elif kind == INT8:  # convolutions
            result[name] = tensor.to(torch.bfloat16 if bfloat16_products() else wide)
        else:
            result[name] = tensor.to(DTYPES[kind])
    return result


def bfloat16_products() -> bool:
    """Whether the processor multiplies bfloat16 itself: elsewhere it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())
