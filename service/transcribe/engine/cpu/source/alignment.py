"""The kernels of the words' times. For numba: only the compiler imports this; arguments are as in layers.py."""

from typing import Any

import numpy as np

from transcribe.engine.cpu.constants import MEDIAN
from transcribe.engine.cpu.source.simd import (
    SMALLEST,
    F,
    doubles,
    inlined,
    integers,
    kernel,
    maximum,
    minimum,
    row_of,
    signed,
)

FAR = 1e300  # what no path can cost
HALF = MEDIAN // 2


@inlined
def _sum_to_one(weights: Any, tokens: Any, positions: Any, sums: Any) -> None:
    """Divides each token's weights by their sum, and adds up what each position gets in `sums`."""
    for place in range(positions):
        sums[place] = F(0)
    for token in range(tokens):
        row, total = row_of(weights, token, positions), F(0)
        for place in range(positions):
            total += row[place]
        share = F(1) / maximum(total, SMALLEST)
        for place in range(positions):
            row[place] *= share
            sums[place] += row[place]


@kernel
def normalize_attention(task: int, tokens: int, positions: int, weights: int, scratch: int) -> None:
    """Makes each token's weights sum to one, and then each position's have mean 0 and deviation 1 over the tokens.

    A task is a head; weights float32 [heads, tokens, positions], scratch float32 [heads, 2, positions].
    """
    own = weights + task * tokens * positions * 4
    means, deviations = row_of(scratch, 2 * task, positions), row_of(scratch, 2 * task + 1, positions)
    _sum_to_one(own, tokens, positions, means)
    for place in range(positions):
        means[place] /= F(tokens)
        deviations[place] = F(0)
    for token in range(tokens):
        row = row_of(own, token, positions)
        for place in range(positions):
            row[place] -= means[place]
            deviations[place] += row[place] * row[place]
    for place in range(positions):
        deviations[place] = F(1) / maximum(np.sqrt(deviations[place] / F(tokens)), SMALLEST)
    for token in range(tokens):
        row = row_of(own, token, positions)
        for place in range(positions):
            row[place] *= deviations[place]


@inlined
def _median(line: Any, place: Any) -> Any:
    """Of MEDIAN values from `place` on: a network of 13 exchanges (Devillard, Fast median search)."""
    a, b, c, d = line[place], line[place + 1], line[place + 2], line[place + 3]
    e, f, g = line[place + 4], line[place + 5], line[place + 6]
    a, f = minimum(a, f), maximum(a, f)
    a, d = minimum(a, d), maximum(a, d)
    b, g = minimum(b, g), maximum(b, g)
    c, e = minimum(c, e), maximum(c, e)
    b = maximum(a, b)
    d, f = minimum(d, f), maximum(d, f)
    c, g = minimum(c, g), maximum(c, g)
    c, d = minimum(c, d), maximum(c, d)
    d = minimum(d, g)
    e = minimum(e, f)
    b, e = minimum(b, e), maximum(b, e)
    d = maximum(b, d)
    return minimum(d, e)


@kernel
def alignment_cost(task: int, heads: int, tokens: int, positions: int, weights: int, scratch: int, costs: int) -> None:
    """Minus the mean over heads of the weights' running median, mirrored at the ends.

    A task is a token; weights as above, costs float32 [tokens, positions], scratch [tokens, positions + MEDIAN].
    """
    line, found = row_of(scratch, task, positions + MEDIAN), row_of(costs, task, positions)
    for place in range(positions):
        found[place] = F(0)
    share = F(-1) / F(heads)
    for head in range(heads):
        row = row_of(weights, head * tokens + task, positions)
        for place in range(positions):
            line[place + HALF] = row[place]
        for beyond in range(1, HALF + 1):
            line[HALF - beyond] = row[beyond]
            line[HALF + positions - 1 + beyond] = row[positions - 1 - beyond]
        for place in range(positions):
            found[place] += _median(line, place) * share


@inlined
def _trace_back(tokens: Any, positions: Any, trace: Any, begins: Any) -> None:
    token, place = tokens - 1, positions - 1
    while token >= 0 and place >= 0:
        begins[token] = place
        came = signed(trace + token * positions, positions)[place]
        if token == 0:
            came = np.int8(2)
        elif place == 0:
            came = np.int8(1)
        if came != 2:
            token -= 1
        if came != 1:
            place -= 1


@kernel
def warp(task: int, tokens: int, positions: int, costs: int, totals: int, trace: int, begins: int) -> None:
    """Where each token begins, int64 [tokens], on the cheapest monotonic path through `costs` [tokens, positions].

    One task; totals float64 [2, positions + 1], trace int8 [tokens, positions].
    """
    before, now = doubles(totals, positions + 1), doubles(totals + (positions + 1) * 8, positions + 1)
    for place in range(positions + 1):
        before[place] = FAR
    before[0] = 0.0  # the path comes from outside the corner
    for token in range(tokens):
        row, steps = row_of(costs, token, positions), signed(trace + token * positions, positions)
        left = FAR
        for place in range(positions):
            both, up = before[place], before[place + 1]
            step, best = 2, left
            if up < both and up < left:
                step, best = 1, up
            if both < up and both < left:
                step, best = 0, both
            left = best + np.float64(row[place])
            steps[place] = np.int8(step)
            now[place + 1] = left
        now[0] = FAR
        for place in range(positions + 1):
            before[place] = now[place]
    _trace_back(tokens, positions, trace, integers(begins, tokens))
