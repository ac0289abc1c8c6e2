"""Products of int8 matrices, whose sums are exact on every processor that has them (AVX2, VNNI).

They work per output channel on the weights and per row on the input: each row is divided by its largest magnitude, so
that one loud position does not cost the others their precision, and rows do not depend on who shares the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.constants import BLOCK, DOT_OUTPUTS, MULTIPLY, OUTPUTS, ROW_BLOCK, SMALLEST
from transcribe.engine.cpu.ops import Product, QuantizedRows

from .library import Library

Linear = Callable[[Tensor], Tensor]

LEVELS = 127  # of int8, on either side of zero
ZERO = 128  # of uint8: the instructions multiply unsigned bytes with signed ones


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and the scale of each output [out] for a float matrix [out, in]."""
    scale = weight.float().abs().amax(1).clamp(min=SMALLEST) / LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


@dataclass(frozen=True)
class Matrix:
    """A linear layer of an int8 matrix."""

    library: Library
    multiply: Linear  # from uint8 levels [rows, in] to float32 [rows, out], to be multiplied by each row's absmax
    bias: Tensor  # [out]; zeros where there is none

    def times(self, x: QuantizedRows) -> Product:
        """[rows, in] → [rows, out]"""
        return Product(self.multiply(x.levels), x.absmax, self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [..., in] → [..., out]"""
        rows = x.reshape(-1, x.shape[-1])
        return self.times(ops.quantize_rows(self.library, rows)).dequantize().view(*x.shape[:-1], -1)


def gemm(library: Library, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Matrix:
    """For `weight` int8 [out, in] and inputs of many rows: by oneDNN, which makes a copy of its own.

    Only with AVX-512 VNNI. On older processors oneDNN adds pairs of products in int16, which saturates: 255 · 127 twice
    512 times came to 65,280 in place of 8,258,048.
    """
    if not torch.cpu._is_vnni_supported():
        return gemv(library, weight, scale, bias)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    multiply = torch.ops.onednn.qlinear_pointwise
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    small = scale / LEVELS
    return Matrix(
        library,
        lambda levels: multiply(levels, 1.0, ZERO, packed, small, zeros, None, 1.0, 0, torch.float32, "none", [], ""),
        torch.zeros_like(scale) if bias is None else bias,
    )


def gemv(library: Library, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Matrix:
    """For inputs of few rows, by a kernel that reads the matrix where it lies. Raises ValueError for other sizes than
    it is made for."""
    outputs, inputs = weight.shape
    if inputs % BLOCK or outputs < DOT_OUTPUTS:
        raise ValueError(f"a matrix of {outputs} × {inputs}")
    zeros = weight.sum(1, dtype=torch.int32) * ZERO
    small = scale / LEVELS

    def multiply(levels: Tensor) -> Tensor:
        rows = len(levels)
        product = torch.empty(rows, outputs)
        tasks = -(-outputs // OUTPUTS) * -(-rows // ROW_BLOCK)
        library.run(MULTIPLY, tasks, rows, inputs, outputs, levels, weight, zeros, small, product)
        return product

    return Matrix(library, multiply, torch.zeros_like(scale) if bias is None else bias)
