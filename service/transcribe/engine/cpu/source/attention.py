"""The kernels of the decoder's attention. For numba: only the compiler imports this; arguments are as in layers.py."""

from typing import Any

import numpy as np

from transcribe.engine.cpu.constants import CHANNELS
from transcribe.engine.cpu.source.simd import (
    LOG2E,
    SMALLEST,
    F,
    exp2,
    floats,
    halves,
    inlined,
    integers,
    kernel,
    maximum,
    narrowed,
    padded_length,
    prefetch_range,
    row_of,
    signed,
    widened,
)

AHEAD = 16  # values that are prefetched before they are needed


@inlined
def _absmax(task: Any, rows: Any, width: Any, size: Any, product: Any, times: Any, biases: Any, absmax: Any) -> None:
    """The largest magnitude of each of a task's channels, over all rows, in 127ths."""
    for place in range(size):
        absmax[place] = SMALLEST
    for row in range(rows):
        found = floats(product + (row * width + task * size) * 4, size)
        for place in range(size):
            absmax[place] = maximum(absmax[place], abs(found[place] * times[row] + biases[place]))
    for place in range(size):
        absmax[place] /= F(127)


@kernel
def quantize_cross_kv(
    task: int,
    rows: int,
    heads: int,
    size: int,
    product: int,
    scale: int,
    bias: int,
    keys: int,
    values: int,
    scales: int,
) -> None:
    """Quantizes keys and values of a product [rows, 2 · heads · size] to int8, each channel by its largest magnitude.

    A task is a head, first of the keys [heads, size, padded], then of the values [heads, padded, size]; scales
    [2 · heads, size]. Keys beyond the rows are zero.
    """
    padded, width = padded_length(rows), 2 * heads * size
    times, biases, absmax = floats(scale, rows), row_of(bias, task, size), row_of(scales, task, size)
    _absmax(task, rows, width, size, product, times, biases, absmax)
    own = keys + task * size * padded if task < heads else values + (task - heads) * padded * size
    across, along = (padded, 1) if task < heads else (1, size)
    for row in range(rows):
        found = floats(product + (row * width + task * size) * 4, size)
        for place in range(size):
            level = np.floor((found[place] * times[row] + biases[place]) / absmax[place] + F(0.5))
            signed(own + place * across + row * along, 1)[0] = np.int8(np.int32(level))
    if task < heads:
        for place in range(size):
            for row in range(rows, padded):
                signed(own + place * padded + row, 1)[0] = np.int8(0)


@inlined
def _score(query: Any, scale: Any, keys: Any, padded: Any, size: Any, scores: Any) -> None:
    """scores [padded] of a query [size] with keys [size, padded], times log2(e)."""
    for place in range(padded):
        scores[place] = F(0)
    for first in range(0, size, CHANNELS):
        q0, q1 = query[first] * scale[first] * LOG2E, query[first + 1] * scale[first + 1] * LOG2E
        q2, q3 = query[first + 2] * scale[first + 2] * LOG2E, query[first + 3] * scale[first + 3] * LOG2E
        start = keys + first * padded
        prefetch_range(start + CHANNELS * padded, CHANNELS * padded)
        k0, k1 = signed(start, padded), signed(start + padded, padded)
        k2, k3 = signed(start + 2 * padded, padded), signed(start + 3 * padded, padded)
        for place in range(padded):
            scores[place] += q0 * F(k0[place]) + q1 * F(k1[place]) + q2 * F(k2[place]) + q3 * F(k3[place])


@inlined
def _softmax(scores: Any, count: Any) -> None:
    """Softmax of the first `count` scores, in place."""
    largest = F(-3e38)
    for place in range(count):
        largest = maximum(largest, scores[place])
    total = F(0)
    for place in range(count):
        scores[place] = exp2(scores[place] - largest)
        total += scores[place]
    share = F(1) / total
    for place in range(count):
        scores[place] *= share


@inlined
def _weighted_sum(weights: Any, count: Any, values: Any, scale: Any, size: Any, target: Any) -> None:
    """The weighted sum [size] of `count` values [count, size]."""
    for place in range(size):
        target[place] = F(0)
    whole = count // 4 * 4
    for first in range(0, whole, 4):
        prefetch_range(values + (first + AHEAD) * size, 4 * size)
        w0, w1, w2, w3 = weights[first], weights[first + 1], weights[first + 2], weights[first + 3]
        v0, v1 = signed(values + first * size, size), signed(values + (first + 1) * size, size)
        v2, v3 = signed(values + (first + 2) * size, size), signed(values + (first + 3) * size, size)
        for place in range(size):
            target[place] += w0 * F(v0[place]) + w1 * F(v1[place]) + w2 * F(v2[place]) + w3 * F(v3[place])
    for one in range(whole, count):
        rest = signed(values + one * size, size)
        for place in range(size):
            target[place] += weights[one] * F(rest[place])
    for place in range(size):
        target[place] *= scale[place]


@inlined
def _append(product: Any, times: Any, bias: Any, part: Any, target: Any, size: Any) -> None:
    """Writes one part of a product as bfloat16 to `target` [size]; all but `times` are addresses."""
    found, biases, kept = row_of(product, part, size), row_of(bias, part, size), halves(target, size)
    for place in range(size):
        kept[place] = narrowed(found[place] * times + biases[place])


@inlined
def _attend(query: Any, keys: Any, values: Any, count: Any, scores: Any, target: Any) -> None:
    """Attention of a query [size] to `count` keys and values, bfloat16 [count, size] at their addresses."""
    size = len(query)
    for token in range(count):
        key, total = halves(keys + token * size * 2, size), F(0)
        for place in range(size):
            total += query[place] * widened(key[place])
        scores[token] = total
    _softmax(scores, count)
    for place in range(size):
        target[place] = F(0)
    for token in range(count):
        value, share = halves(values + token * size * 2, size), scores[token]
        for place in range(size):
            target[place] += share * widened(value[place])


@kernel
def self_attention(
    task: int,
    heads: int,
    size: int,
    count: int,
    room: int,
    product: int,
    scale: int,
    bias: int,
    starts: int,
    keys: int,
    values: int,
    scratch: int,
    mixed: int,
) -> None:
    """Causal attention of `count` tokens of a row to its text: mixed float32 [rows · count, heads · size].

    A task is a head of a row. The product [rows · count, 3 · heads · size] is the tokens' queries, keys and values;
    keys and values are kept, from the place starts [rows] on: bfloat16 [rows, heads, room, size]. scratch: float32
    [rows, heads, room + size].
    """
    batch, head = task // heads, task % heads
    own, text = scratch + task * (room + size) * 4, task * room * size * 2
    scores, query = floats(own, room), floats(own + room * 4, size)
    start = integers(starts + batch * 8, 1)[0]
    for number in range(count):
        row, token = batch * count + number, start + number
        times, found = floats(scale + row * 4, 1)[0], product + row * 3 * heads * size * 4
        _append(found, times, bias, heads + head, keys + text + token * size * 2, size)
        _append(found, times, bias, 2 * heads + head, values + text + token * size * 2, size)
        asked, biases = row_of(found, head, size), row_of(bias, head, size)
        for place in range(size):
            query[place] = (asked[place] * times + biases[place]) * LOG2E
        _attend(query, keys + text, values + text, token + 1, scores, row_of(mixed, row * heads + head, size))


@kernel
def cross_attention(
    task: int, heads: int, size: int, queries: int, query: int, table: int, longest: int, weights: int, mixed: int
) -> None:
    """Attention of queries [rows, queries, heads · size] to the audio of their rows: `mixed`, of the same shape.

    A task is a head of a row. `table` [rows, 4]: the length of a row's audio, and the addresses of what
    `quantize_cross_kv` wrote. weights: float32 [rows, heads, queries, longest].
    """
    row, head = task // heads, task % heads
    facts = integers(table + row * 32, 4)
    length, scales = facts[0], facts[3]
    padded = padded_length(length)
    keys, values = facts[1] + head * size * padded, facts[2] + head * size * padded
    for number in range(queries):
        place = (row * queries + number) * heads + head
        scores = row_of(weights, task * queries + number, longest)
        _score(row_of(query, place, size), row_of(scales, head, size), keys, padded, size, scores)
        _softmax(scores, length)
        _weighted_sum(scores, length, values, row_of(scales, heads + head, size), size, row_of(mixed, place, size))
