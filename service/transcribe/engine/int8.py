"""Products of int8 matrices, on processors that sum them without overflow (VNNI).

They work per output channel on the weights and per row on the input: each row is divided by its largest magnitude, so
that one loud position does not cost the others their precision, and rows do not depend on who shares the batch.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .weights import Linear

LEVELS = 127  # of int8, on either side of zero
ZERO = 128  # of uint8: oneDNN multiplies unsigned inputs with signed matrices
SMALLEST = 1e-9  # keeps a row of zeros from being divided by zero


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and the scale of each output [out] for a float matrix [out, in]."""
    scale = weight.float().abs().amax(1).clamp(min=SMALLEST) / LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def largest(x: Tensor) -> Tensor:
    """The largest magnitude of each row [..., 1]."""
    return torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_()).clamp_(min=SMALLEST)


def unsigned(x: Tensor) -> Tensor:
    """uint8 of floats in -ZERO … ZERO - 1, as ZERO more. Changes `x`. Torch's own conversion is ten times as slow."""
    return x.round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO)


def product(weight: Tensor, scale: Tensor, *, zero: int = ZERO) -> Linear:
    """From uint8 [rows, in], of which `zero` stands for none, to float32 [rows, out]; `weight` int8 [out, in]."""
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    multiply = torch.ops.onednn.qlinear_pointwise
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    return lambda x: multiply(x, 1.0, zero, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], "")


def linear(weight: Tensor, scale: Tensor, bias: Tensor | None, *, few: bool = False) -> Linear:
    """A linear layer of an int8 matrix; input and output are float32.

    `few`: for inputs of few rows, where fbgemm's product is the faster one; for many it is oneDNN's.
    """
    multiply = _few_rows(weight, scale) if few else _many_rows(weight, scale)

    def apply(x: Tensor) -> Tensor:
        loudest = largest(x)
        y = multiply(x, loudest).mul_(loudest)
        return y if bias is None else y.add_(bias)

    return apply


def _few_rows(weight: Tensor, scale: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The product with rows that are divided by their `loudest` magnitude first."""
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():  # torch is to drop this kind of tensor one day; the version is pinned
        warnings.simplefilter("ignore", UserWarning)
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        matrix = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
    packed = torch.ops.quantized.linear_prepack(matrix, None)
    multiply = torch.ops.quantized.linear_dynamic
    return lambda x, loudest: multiply(x / loudest, packed)


def _many_rows(weight: Tensor, scale: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    multiply = product(weight, scale / LEVELS)

    def apply(x: Tensor, loudest: Tensor) -> Tensor:
        narrow = unsigned(x * (LEVELS / loudest))
        return multiply(narrow.view(-1, narrow.shape[-1])).view(*x.shape[:-1], -1)

    return apply


def supported() -> bool:
    """Whether the processor has what these products need."""
    return bool(torch.cpu._is_vnni_supported())
