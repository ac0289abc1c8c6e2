"""Times of words from the attention of the alignment heads by dynamic time warping, as in OpenAI's timing.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.constants import MEDIAN
from transcribe.engine.cpu.library import Library
from transcribe.types import Segment, Word

CostFunction = Callable[[Tensor, int], Tensor]
POSITION_SECONDS = 0.02
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
SENTENCE_ENDS = ".。!！?？"


@dataclass(frozen=True)
class Timing:
    """A word of a window with its times in seconds from the window's start."""

    text: str
    tokens: tuple[int, ...]
    start: float
    end: float
    probability: float


def begins(
    attention: Tensor, width: int, library: Library | None = None, costs: CostFunction | None = None
) -> npt.NDArray[np.int64]:
    """The position at which each token begins. `attention` [heads, tokens, positions] is that by which it was chosen,
    `width` the odd number of positions whose median is taken. With a processor's `library`, and with what computes
    `costs` on a GPU, it is faster."""
    if library is None:
        return warp(cost(attention, width).double().cpu().numpy())
    if attention.device.type == "cpu" and width == MEDIAN <= attention.shape[-1]:
        matrix = ops.alignment_cost(library, attention.float().contiguous())
    else:
        matrix = (costs or cost)(attention, width).cpu()
    found: npt.NDArray[np.int64] = ops.warp(library, matrix).numpy()
    return found


def cost(attention: Tensor, width: int) -> Tensor:
    """Minus the mean over heads of the normalised, median-filtered attention: float32 [tokens, positions].

    `attention` is [heads, tokens, positions]; `width` is odd.
    """
    weights = attention.float()
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
    spread, mean = torch.std_mean(weights, dim=-2, keepdim=True, correction=0)
    weights = (weights - mean) / torch.clamp(spread, min=1e-9)
    half = width // 2
    if weights.shape[-1] > half:
        weights = median(F.pad(weights, (half, half), mode="reflect").unfold(-1, width, 1).unbind(-1))
    return -weights.mean(0)


def median(values: Sequence[Tensor]) -> Tensor:
    """Of an odd number of tensors, place by place: rounds of exchanges between neighbours, which every device does with
    whole tensors at once, where torch's own median sorts a few numbers at a time."""
    found = list(values)
    for last in range(len(found) - 1, len(found) // 2 - 1, -1):  # the largest of the rest goes to its end
        for place in range(last):
            one, other = found[place], found[place + 1]
            found[place], found[place + 1] = torch.minimum(one, other), torch.maximum(one, other)
    return found[len(found) // 2]


def warp(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The position at which each token begins, on the cheapest monotonic path through `matrix` [tokens, positions].

    Works along anti-diagonals, each of which is one vector operation.
    """
    rows, columns = matrix.shape
    # skewed[d, i] is the cell (i, d - i): every cell of diagonal d depends on diagonals d - 1 and d - 2 only.
    diagonals = rows + columns - 1
    row = np.arange(rows)
    column = np.arange(diagonals)[:, None] - row[None, :]
    inside = (column >= 0) & (column < columns)
    skewed = np.where(inside, matrix[row[None, :], np.clip(column, 0, columns - 1)], np.inf)
    trace = np.zeros((diagonals, rows), dtype=np.int8)
    before = np.full(rows + 1, np.inf)  # shifted by one: before[i + 1] is row i
    earlier = before.copy()
    earlier[0] = 0.0  # the path comes from outside the corner
    for diagonal in range(diagonals):
        both, up, left = earlier[:-1], before[:-1], before[1:]
        step = np.where((both < up) & (both < left), 0, np.where((up < both) & (up < left), 1, 2)).astype(np.int8)
        trace[diagonal] = step
        current = np.full(rows + 1, np.inf)
        current[1:] = skewed[diagonal] + np.choose(step, (both, up, left))
        earlier, before = before, current
    return _begins(trace, rows, columns)


def _begins(trace: npt.NDArray[np.int8], rows: int, columns: int) -> npt.NDArray[np.int64]:
    begins = np.zeros(rows, dtype=np.int64)
    i, j = rows - 1, columns - 1
    while i >= 0 and j >= 0:
        begins[i] = j
        step = trace[i + j, i]
        if i == 0 and j > 0:
            step = 2
        elif j == 0 and i > 0:
            step = 1
        i -= int(step in (0, 1))
        j -= int(step in (0, 2))
    return begins


def timings(
    words: Sequence[tuple[str, list[int]]], begins: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> list[Timing]:
    """Words with times, from where each token begins (one more than there are tokens: the end) and its probability."""
    result = []
    place, chances = 0, probabilities.tolist()  # numpy takes longer for so few
    for text, tokens in words:
        after = place + len(tokens)
        start, end = float(begins[place]), float(begins[min(after, len(begins) - 1)])
        chance = sum(chances[place:after]) / max(1, len(tokens))
        result.append(Timing(text, tuple(tokens), start * POSITION_SECONDS, end * POSITION_SECONDS, chance))
        place = after
    return _merged(_shortened(result))


def _shortened(words: list[Timing]) -> list[Timing]:
    """Cuts words that swallowed a pause: those at the border of a sentence, longer than twice the median."""
    durations = sorted(word.end - word.start for word in words if word.end > word.start)
    median = min(0.7, durations[len(durations) // 2]) if durations else 0.0
    longest = 2 * median
    for i, word in enumerate(words):
        if not durations or word.end - word.start <= longest:
            continue
        if word.text.strip() in SENTENCE_ENDS:
            words[i] = replace(word, end=word.start + longest)
        elif i > 0 and words[i - 1].text.strip()[-1:] in SENTENCE_ENDS and words[i - 1].text.strip():
            words[i] = replace(word, start=word.end - longest)
    return words


def _join(first: Timing, second: Timing, *, keep_end: bool) -> Timing:
    return Timing(
        first.text + second.text,
        first.tokens + second.tokens,
        second.start if not keep_end else first.start,
        first.end if keep_end else second.end,
        first.probability if keep_end else second.probability,
    )


def _merged(words: list[Timing]) -> list[Timing]:
    """Punctuation belongs to the word that it stands at, which keeps its own times."""
    forward: list[Timing] = []
    for word in words:
        mark = word.text.strip()
        if forward and mark in APPENDED and not word.text.startswith(" ") and mark:
            forward[-1] = _join(forward[-1], word, keep_end=True)
        else:
            forward.append(word)
    backward: list[Timing] = []
    for word in reversed(forward):
        mark = word.text.strip()
        if backward and word.text.startswith(" ") and mark in PREPENDED and mark:
            backward[-1] = _join(word, backward[-1], keep_end=False)
        else:
            backward.append(word)
    return backward[::-1]


def attach(segment: Segment, words: Sequence[Timing], offset: float) -> Segment:
    """`segment` with its words: monotonic, inside the segment's own times. `offset` is the window's start, seconds."""
    placed = []
    floor = segment.start
    for word in words:
        start = min(max(word.start + offset, floor), segment.end)
        end = min(max(word.end + offset, start), segment.end)
        placed.append(Word(word.text, round(start, 3), round(end, 3), round(word.probability, 4)))
        floor = end
    return replace(segment, words=tuple(placed))
