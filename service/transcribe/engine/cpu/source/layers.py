"""Kernels that work row by row; a task is ROWS of them. For numba: only the compiler imports this.

All kernels take the number of their task, sizes, and addresses of contiguous arrays, named for what lies there. An int8
product is float32 [rows, columns] with `scale` [rows] and `bias` [columns], and stands for product · scale + bias.
Quantized rows are uint8 `levels` [rows, columns] with `absmax` [rows], as simd.quantize writes them.
"""

import numpy as np

from transcribe.engine.cpu.constants import ROWS
from transcribe.engine.cpu.source.simd import (
    LOG2E,
    F,
    floats,
    gelu,
    halves,
    kernel,
    maximum,
    narrowed,
    quantize,
    rough_exp2,
    row_of,
    unsigned,
    widened,
)


@kernel
def quantize_rows(task: int, rows: int, width: int, x: int, levels: int, absmax: int) -> None:
    """Quantizes x [rows, width]."""
    largest = floats(absmax, rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        largest[row] = quantize(row_of(x, row, width), unsigned(levels + row * width, width), width)


@kernel
def add_layernorm_quantize(
    task: int,
    rows: int,
    width: int,
    x: int,
    product: int,
    scale: int,
    bias: int,
    weight: int,
    shift: int,
    scratch: int,
    levels: int,
    absmax: int,
) -> None:
    """Adds a product to `x` (none if its address is 0); levels of x's layer norm. scratch: float32 [tasks, width]."""
    scales, biases, largest = floats(scale, rows), floats(bias, width), floats(absmax, rows)
    weights, shifts, normal = floats(weight, width), floats(shift, width), row_of(scratch, task, width)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        values = row_of(x, row, width)
        if product != 0:
            more, times = row_of(product, row, width), scales[row]
            for column in range(width):
                values[column] += more[column] * times + biases[column]
        total = F(0)
        for column in range(width):
            total += values[column]
        mean = total / F(width)
        square = F(0)
        for column in range(width):
            square += (values[column] - mean) * (values[column] - mean)
        deviation = F(1) / np.sqrt(square / F(width) + F(1e-5))
        for column in range(width):
            normal[column] = (values[column] - mean) * deviation * weights[column] + shifts[column]
        largest[row] = quantize(normal, unsigned(levels + row * width, width), width)


@kernel
def gelu_quantize(
    task: int, rows: int, width: int, product: int, scale: int, bias: int, levels: int, absmax: int
) -> None:
    """Quantizes the GELU of a product [rows, width], which is overwritten."""
    scales, biases, largest = floats(scale, rows), floats(bias, width), floats(absmax, rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        values, times = row_of(product, row, width), scales[row]
        for column in range(width):
            values[column] = gelu(values[column] * times + biases[column])
        largest[row] = quantize(values, unsigned(levels + row * width, width), width)


@kernel
def split_heads(
    task: int, rows: int, parts: int, queries: int, size: int, product: int, scale: int, bias: int, heads: int
) -> None:
    """A product [rows, parts · size] as bfloat16 [parts, rows, size]; the first parts, `queries`, times log2(e)."""
    scales = floats(scale, rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        times = scales[row]
        for part in range(parts):
            base = LOG2E if part < queries else F(1)
            values, biases = row_of(product, row * parts + part, size), row_of(bias, part, size)
            target = halves(heads + (part * rows + row) * size * 2, size)
            for place in range(size):
                target[place] = narrowed((values[place] * times + biases[place]) * base)


@kernel
def exp2_rows(task: int, rows: int, columns: int, scores: int, sums: int) -> None:
    """Powers of two of scores [rows, columns], bfloat16, in their place, divided by a row's largest; sums [rows]."""
    totals = floats(sums, rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        values = halves(scores + row * columns * 2, columns)
        largest = F(-3e38)
        for column in range(columns):
            largest = maximum(largest, widened(values[column]))
        total = F(0)
        for column in range(columns):
            share = rough_exp2(widened(values[column]) - largest)
            values[column] = narrowed(share)
            total += share
        totals[row] = total


@kernel
def merge_heads(
    task: int, rows: int, heads: int, size: int, mixed: int, sums: int, scratch: int, levels: int, absmax: int
) -> None:
    """Levels [rows, heads · size] of bfloat16 [heads, rows, size], divided by sums [heads, rows]. scratch: float32
    [tasks, heads · size]."""
    width = heads * size
    largest, shares = floats(absmax, rows), floats(sums, heads * rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        for head in range(heads):
            values = halves(mixed + (head * rows + row) * size * 2, size)
            target, times = row_of(scratch, task * heads + head, size), F(1) / shares[head * rows + row]
            for place in range(size):
                target[place] = widened(values[place]) * times
        largest[row] = quantize(row_of(scratch, task, width), unsigned(levels + row * width, width), width)
