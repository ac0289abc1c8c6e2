"""The kernel that finds the next token. For numba: only the compiler imports this; arguments are as in layers.py."""

from typing import Any

from transcribe.engine.cpu.source.simd import LOG2E, F, exp2, floats, inlined, integers, kernel, maximum

LEAST = F(-3e38)
BLOCK = 512  # values whose largest is found in vectors; only the block with the best is searched one by one


@inlined
def _largest(values: Any, biases: Any, count: Any) -> Any:
    found = LEAST
    for place in range(count):
        found = maximum(found, values[place] + biases[place])
    return found


@inlined
def _best(logits: Any, bias: Any, count: Any) -> Any:
    """The largest of `count` logits with their bias, its place, and the sum of all as powers of e divided by it."""
    largest, block = LEAST, 0
    for start in range(0, count, BLOCK):
        here = _largest(floats(logits + start * 4, BLOCK), floats(bias + start * 4, BLOCK), min(BLOCK, count - start))
        if here > largest:
            largest, block = here, start
    values, biases = floats(logits, count), floats(bias, count)
    place = block
    while place < count - 1 and values[place] + biases[place] < largest:
        place += 1
    total = F(0)
    for at in range(count):
        total += exp2((values[at] + biases[at] - largest) * LOG2E)
    return largest, place, total


@kernel
def best_tokens(task: int, vocabulary: int, logits: int, bias: int, ranges: int, values: int, tokens: int) -> None:
    """A row's best token in each of two ranges of the vocabulary.

    logits [rows, vocabulary] plus bias [vocabulary], which is finite; ranges int64 [rows, 2, 2]: begin and end. Writes
    for both ranges the largest and the sum [rows, 2, 2] (-3e38 and 0 where the range is empty), and the tokens int64
    [rows, 2].
    """
    limits = integers(ranges + task * 32, 4)
    found, best = floats(values + task * 16, 4), integers(tokens + task * 16, 2)
    for part in range(2):
        begin, count = limits[2 * part], max(limits[2 * part + 1] - limits[2 * part], 0)
        largest, place, total = _best(logits + (task * vocabulary + begin) * 4, bias + begin * 4, count)
        found[2 * part], found[2 * part + 1], best[part] = largest, total, begin + place
