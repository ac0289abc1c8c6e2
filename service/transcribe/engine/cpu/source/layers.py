"""The loops that work row by row, each over one share of its work: `task` says which. For numba: only the compiler
imports this.

Arguments are addresses of contiguous arrays, named for what lies there, and sizes. A matrix product of int8 matrices
comes as float32 [rows, columns] and is told by `scale` [rows] (what its input was divided by) and `bias` [columns]: its
value is product · scale + bias. Levels are what `vector.quantize` writes, [rows, columns], with `loudest` [rows].
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
    larger,
    narrowed,
    quantize,
    rough_power,
    row_of,
    unsigned,
    widened,
)


@kernel
def round_rows(task: int, rows: int, width: int, x: int, levels: int, loudest: int) -> None:
    """Levels of x [rows, width]."""
    told = floats(loudest, rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        told[row] = quantize(row_of(x, row, width), unsigned(levels + row * width, width), width)


@kernel
def add_and_normalize(
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
    loudest: int,
) -> None:
    """Adds a product to `x` (none if its address is 0); levels of x's layer norm. scratch: float32 [tasks, width]."""
    scales, biases, told = floats(scale, rows), floats(bias, width), floats(loudest, rows)
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
        told[row] = quantize(normal, unsigned(levels + row * width, width), width)


@kernel
def activate(task: int, rows: int, width: int, product: int, scale: int, bias: int, levels: int, loudest: int) -> None:
    """Levels of a product's GELU; changes the product."""
    scales, biases, told = floats(scale, rows), floats(bias, width), floats(loudest, rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        values, times = row_of(product, row, width), scales[row]
        for column in range(width):
            values[column] = gelu(values[column] * times + biases[column])
        told[row] = quantize(values, unsigned(levels + row * width, width), width)


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
def exponentials(task: int, rows: int, columns: int, scores: int, sums: int) -> None:
    """Powers of two of scores [rows, columns], bfloat16, in their place, divided by a row's largest; sums [rows]."""
    told = floats(sums, rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        values = halves(scores + row * columns * 2, columns)
        largest = F(-3e38)
        for column in range(columns):
            largest = larger(largest, widened(values[column]))
        total = F(0)
        for column in range(columns):
            share = rough_power(widened(values[column]) - largest)
            values[column] = narrowed(share)
            total += share
        told[row] = total


@kernel
def merge_heads(
    task: int, rows: int, heads: int, size: int, mixed: int, sums: int, scratch: int, levels: int, loudest: int
) -> None:
    """Levels [rows, heads · size] of bfloat16 [heads, rows, size], divided by sums [heads, rows]. scratch: float32
    [tasks, heads · size]."""
    width = heads * size
    told, shares = floats(loudest, rows), floats(sums, heads * rows)
    for row in range(task * ROWS, min(task * ROWS + ROWS, rows)):
        for head in range(heads):
            values = halves(mixed + (head * rows + row) * size * 2, size)
            target, times = row_of(scratch, task * heads + head, size), F(1) / shares[head * rows + row]
            for place in range(size):
                target[place] = widened(values[place]) * times
        told[row] = quantize(row_of(scratch, task, width), unsigned(levels + row * width, width), width)
