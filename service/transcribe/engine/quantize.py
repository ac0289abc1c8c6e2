"""Matrices in the precision that suits the processor.

int8 works per output channel on the weights and per row on the input: each row is divided by its largest magnitude, so
that one loud position does not cost the others their precision, and rows do not depend on who shares the batch.
"""

import warnings
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from .network import Linear
from .weights import Weights

INT8, BFLOAT16, FLOAT16, FLOAT32 = "int8", "bfloat16", "float16", "float32"
DTYPES: Mapping[str, torch.dtype] = {BFLOAT16: torch.bfloat16, FLOAT16: torch.float16, FLOAT32: torch.float32}
LEVELS = 127  # of int8, on either side of zero
ZERO = 128  # of uint8: oneDNN multiplies unsigned inputs with signed matrices
SMALLEST = 1e-9  # keeps a row of zeros from being divided by zero


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and the scale of each output [out] for a float matrix [out, in]."""
    scale = weight.float().abs().amax(1).clamp(min=SMALLEST) / LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def int8_linear(weight: Tensor, scale: Tensor, bias: Tensor | None, *, few: bool = False) -> Linear:
    """A linear layer of an int8 matrix; input and output are float32.

    `few`: for inputs of few rows, where fbgemm's product is the faster one; for many it is oneDNN's.
    """
    product = _few_rows(weight, scale) if few else _many_rows(weight, scale)

    def apply(x: Tensor) -> Tensor:
        largest = torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_()).clamp_(min=SMALLEST)
        y = product(x, largest).mul_(largest)
        return y if bias is None else y.add_(bias)

    return apply


def _few_rows(weight: Tensor, scale: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The product with rows that are divided by their `largest` magnitude first."""
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():  # torch is to drop this kind of tensor one day; the version is pinned
        warnings.simplefilter("ignore", UserWarning)
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        matrix = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
    packed = torch.ops.quantized.linear_prepack(matrix, None)
    product = torch.ops.quantized.linear_dynamic
    return lambda x, largest: product(x / largest, packed)


def _many_rows(weight: Tensor, scale: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    product = torch.ops.onednn.qlinear_pointwise
    zeros, step = torch.zeros(len(scale), dtype=torch.int64), 1.0 / LEVELS

    def apply(x: Tensor, largest: Tensor) -> Tensor:
        narrow = (x * (LEVELS / largest)).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO)
        flat = narrow.view(-1, narrow.shape[-1])
        y = product(flat, step, ZERO, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return y.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]  # torch.ops has no types

    return apply


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
        return int8_linear(weight, scale, bias, few=few)
    return float_linear(weight, bias)


def embedding(weights: Weights, name: str) -> Linear:
    """From token ids to the rows of a matrix, in the dtype of what is no matrix."""
    weight, scale = weights[f"{name}.weight"], weights.get(f"{name}.scale")
    wide = weights["decoder.positions"].dtype
    if scale is None:
        return lambda ids: weight[ids].to(wide)
    return lambda ids: weight[ids] * scale[ids][..., None]


def convert(weights: Weights, kinds: Mapping[str, str], wide: torch.dtype) -> Weights:
    """`weights` with the matrices of "encoder" and "decoder" in their kinds, and all else in `wide`.

    Empties `weights` on its way, so that the two are never in memory together.
    """
    result: Weights = {}
    for name in list(weights):
        tensor = weights.pop(name)
        kind = kinds[name.split(".", 1)[0]]
        if not name.endswith(".weight") or tensor.ndim == 1:
            result[name] = tensor.to(wide)
        elif kind == INT8 and tensor.ndim == 2:
            result[name], result[name.replace(".weight", ".scale")] = quantized(tensor)
        elif kind == INT8:  # convolutions
            result[name] = tensor.to(torch.bfloat16 if bfloat16_products() else wide)
        else:
            result[name] = tensor.to(DTYPES[kind])
    return result


def bfloat16_products() -> bool:
    """Whether the processor multiplies bfloat16 itself: elsewhere it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


def int8_products() -> bool:
    """Whether the processor sums int8 products without overflow (VNNI), as `int8_linear` needs."""
    return bool(torch.cpu._is_vnni_supported())
