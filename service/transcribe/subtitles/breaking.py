"""Cuts pieces into subtitles and their lines, at the cheapest places."""

from collections.abc import Sequence

from transcribe.subtitles.phrases import break_costs, forced_breaks
from transcribe.subtitles.rules import GAP, LONGEST, SHORTEST, Piece, SubtitleOptions

Line = tuple[Piece, ...]

EACH = 3.0  # what a subtitle costs
SMALL = 8.0  # what one that fills less than a third of a line costs more
HURRIED = 4.0  # for each second that it is spoken faster than it can be read
UNEVEN = 12.0  # for a line that is shorter than the longest by all of it
ORPHAN = 25.0  # for a line of a single word


class Breaker:
    """Finds the breaks in one recording's pieces."""

    def __init__(self, pieces: Sequence[Piece], language: str, options: SubtitleOptions) -> None:
        self._pieces = pieces
        self._options = options
        self._costs = break_costs(pieces, language)
        self._forced = forced_breaks(pieces)
        self._before = [0]  # columns before each piece, with the spaces
        for one in pieces:
            self._before.append(self._before[-1] + one.width + one.space)
        self._line_end = self._line_ends()

    def subtitles(self) -> list[tuple[Line, ...]]:
        """The subtitles in order, each as its lines."""
        count = len(self._pieces)
        best, step = [0.0] * (count + 1), [count] * (count + 1)
        for first in range(count - 1, -1, -1):
            best[first], step[first] = min((self._cost(first, end) + best[end], end) for end in self._ends(first))
        found, at = [], 0
        while at < count:
            found.append(self._lines(at, step[at]))
            at = step[at]
        return found

    def _width(self, first: int, end: int) -> int:
        """Columns of the pieces from `first` to before `end`, on one line."""
        return self._before[end] - self._before[first] - self._pieces[first].space

    def _line_ends(self) -> list[int]:
        """For each piece where a line that begins with it must end."""
        ends, end, count = [], 0, len(self._pieces)
        for first in range(count):
            end = max(end, first + 1)
            while end < count and self._width(first, end + 1) <= self._options.max_line_width:
                end += 1
            ends.append(end)
        return [*ends, count]

    def _ends(self, first: int) -> list[int]:
        """Where a subtitle that begins with the piece may end."""
        reach = first
        for _ in range(self._options.max_line_count):
            reach = self._line_end[reach]
        ends = [first + 1]
        for end in range(first + 2, reach + 1):
            too_long = self._pieces[end - 1].end - self._pieces[first].start > LONGEST
            if self._forced[end - 1] or too_long or self._width(first, end) > self._options.capacity:
                break
            ends.append(end)
        return ends

    def _cost(self, first: int, end: int) -> float:
        width = self._width(first, end)
        cost = EACH + self._costs[end] + (SMALL if 3 * width < self._options.max_line_width else 0.0)
        if end == len(self._pieces):
            return cost
        have = self._pieces[end].start - self._pieces[first].start - GAP
        missing = max(0.0, max(SHORTEST, width * 1000 / self._options.max_cps) - have)
        return cost + HURRIED * missing / 1000

    def _lines(self, first: int, end: int) -> tuple[Line, ...]:
        """The pieces on as few lines as they fit, broken at the cheapest places."""
        count, reach = 1, self._line_end[first]
        while reach < end:
            count, reach = count + 1, self._line_end[reach]
        ends = self._best_lines(first, end, count)[1]
        return tuple(tuple(self._pieces[a:b]) for a, b in zip((first, *ends), ends, strict=False))

    def _best_lines(self, first: int, end: int, count: int) -> tuple[float, tuple[int, ...]]:
        """The cost of so many lines, and where each ends."""
        if count == 1:
            return (self._shape(first, end) if self._line_end[first] >= end else float("inf")), (end,)
        found = []
        for middle in range(first + 1, min(self._line_end[first], end - 1) + 1):
            cost, ends = self._best_lines(middle, end, count - 1)
            found.append((self._shape(first, middle) + self._costs[middle] + cost, (middle, *ends)))
        return min(found, default=(float("inf"), (end,)))

    def _shape(self, first: int, end: int) -> float:
        short = 1 - self._width(first, end) / self._options.max_line_width
        return UNEVEN * short * short + (ORPHAN if end - first == 1 and short > 0.5 else 0.0)
