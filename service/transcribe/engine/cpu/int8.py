"""Products of int8 matrices, on processors that sum them without overflow (VNNI).

They work per output channel on the weights and per row on the input: each row is divided by its largest magnitude, so
that one loud position does not cost the others their precision, and rows do not depend on who shares the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .library import Library
from .sizes import OUTPUTS

Linear = Callable[[Tensor], Tensor]

LEVELS = 127  # of int8, on either side of zero
ZERO = 128  # of uint8: oneDNN multiplies unsigned inputs with signed matrices
SMALLEST = 1e-9  # keeps a row of zeros from being divided by zero


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and the scale of each output [out] for a float matrix [out, in]."""
    scale = weight.float().abs().amax(1).clamp(min=SMALLEST) / LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def _loudest(x: Tensor) -> Tensor:
    """The largest magnitude of each row [..., 1]."""
    return torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_()).clamp_(min=SMALLEST)


@dataclass(frozen=True)
class Matrix:
    """A linear layer of an int8 matrix."""

    multiply: Linear  # from uint8 levels [rows, in] to float32 [rows, out], to be multiplied by each row's loudest
    bias: Tensor  # [out]; zeros where there is none

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [..., in] → [..., out]; kernels.py does the same in fewer passes."""
        loudest = _loudest(x)
        # Torch's own conversion from floats to uint8 is ten times as slow.
        levels = (x * (LEVELS / loudest)).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO)
        y = self.multiply(levels.view(-1, levels.shape[-1])).view(*x.shape[:-1], -1)
        return y.mul_(loudest).add_(self.bias)


def many_rows(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Matrix:
    """For `weight` int8 [out, in] and inputs of many rows: by oneDNN, which wants a copy of its own."""
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    multiply = torch.ops.onednn.qlinear_pointwise
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    small = scale / LEVELS
    return Matrix(
        lambda levels: multiply(levels, 1.0, ZERO, packed, small, zeros, None, 1.0, 0, torch.float32, "none", [], ""),
        torch.zeros_like(scale) if bias is None else bias,
    )


def few_rows(library: Library, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Matrix:
    """For inputs of few rows, by a kernel that reads the matrix where it lies."""
    outputs, inputs = weight.shape
    zeros = weight.sum(1, dtype=torch.int32) * ZERO
    small = scale / LEVELS

    def multiply(levels: Tensor) -> Tensor:
        rows = len(levels)
        product = torch.empty(rows, outputs)
        tasks = -(-outputs // OUTPUTS)
        library.run("multiply", tasks, rows, inputs, outputs, levels, weight, zeros, small, product)
        return product

    return Matrix(multiply, torch.zeros_like(scale) if bias is None else bias)


def supported() -> bool:
    """Whether the processor has what these products need."""
    return bool(torch.cpu._is_vnni_supported())
