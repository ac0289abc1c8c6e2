"""How many speakers there are, and which windows are whose: groups of windows are merged while they sound the same.

The likeness of two groups is the mean cosine between their windows over the geometric mean of the mean cosines within
them. What a single window lacks (its noise, its words) cancels out, so that the likeness of one speaker's groups does
not fall with their size: it is near 0.9, that of two speakers below 0.8. How sure that is does depend on the size:
little speech is unlike itself by chance. Hence the likeness that is asked for grows with the smaller group.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# Measured with resemblyzer's weights by tests/bench/speakers.py; between 0.84 and 0.86, and 0.20 and 0.25, nothing
# changes.
SAME = 0.85  # likeness of two large groups of one speaker, at least
CHANCE = 0.23  # what it may lack for chance: over the square root of the smaller group's windows
WINDOW_SECONDS = 1.6  # of speech weigh as one window
PRIOR, PRIOR_PAIRS = 0.77, 2.0  # mean cosine of two windows of a speaker, and how many pairs that counts for
LEAST_SECONDS = 3.0  # of speech: what has less is no speaker of its own, unless the whole recording has little
LEAST_SHARE = 0.2  # of all speech, which is enough in a short recording
SHORTEST_SECONDS = 0.6  # windows below it tell too little to found a group
BLOCK = 400  # windows that are compared with each other; of longer recordings, those found in each block, and so on
SAFE = 0.05  # more likeness is asked for within a block, where little of the recording is known
SAFER = 0.15  # the same where more speakers are wanted than may be found
MERGED = -9.0  # no likeness is so low


@dataclass(frozen=True)
class Groups:
    """Groups of windows, by sums over them that suffice to compare and to merge: `sums` [n, d] of weighted embeddings,
    `weights` [n] and `squares` [n], the sums of the weights and of their squares."""

    sums: Floats
    weights: Floats
    squares: Floats

    @classmethod
    def each(cls, embeddings: NDArray[np.float32], seconds: Floats) -> "Groups":
        """A group of every window."""
        weights = seconds / WINDOW_SECONDS
        return cls(embeddings * weights[:, None], weights, weights**2)

    @classmethod
    def of(cls, embeddings: NDArray[np.float32], seconds: Floats, labels: Labels, count: int | None = None) -> "Groups":
        """The groups 0 … `count` - 1 that `labels` make of the windows; those with others are left out."""
        return cls.each(embeddings, seconds).joined(labels, count)

    def __len__(self) -> int:
        return len(self.weights)

    def part(self, which: slice) -> "Groups":
        """Some of them."""
        return Groups(self.sums[which], self.weights[which], self.squares[which])

    def joined(self, labels: Labels, count: int | None = None) -> "Groups":
        """The groups 0 … `count` - 1 that `labels` make of these."""
        if count is None:
            count = int(labels.max(initial=-1)) + 1
        member = np.equal.outer(np.arange(count), labels).astype(np.float64)
        return Groups(member @ self.sums, member @ self.weights, member @ self.squares)

    def likeness(self, other: "Groups") -> Floats:
        """[n of self, n of other]; of different speakers below 0.8."""
        between = self.sums @ other.sums.T / np.outer(self.weights, other.weights)
        return between / np.sqrt(np.outer(self.within(), other.within()))

    def within(self) -> Floats:
        """[n]: the mean cosine of two windows of the group, for a small one as of any speaker."""
        pairs = self.weights**2 - self.squares
        inner = np.square(self.sums).sum(1) - self.squares
        found: Floats = np.maximum((inner + PRIOR * PRIOR_PAIRS) / (pairs + PRIOR_PAIRS), 0.05)
        return found


def needed(weights: Floats, others: Floats) -> Floats:
    """The likeness at which groups of so many windows are one speaker's: [weights, others]."""
    found: Floats = SAME - CHANCE / np.sqrt(np.minimum.outer(weights, others))
    return found


@dataclass(frozen=True)
class Merge:
    """Group `second` joins group `first`; `margin` is the likeness above what is needed."""

    first: int
    second: int
    margin: float


def merges(groups: Groups) -> Iterator[Merge]:
    """Merges the two groups that are surest to be one, until one is left."""
    sums, weights, squares = groups.sums.copy(), groups.weights.copy(), groups.squares.copy()
    within = groups.within()
    margins = groups.likeness(groups) - needed(weights, weights)
    np.fill_diagonal(margins, MERGED)
    nearest, best = margins.argmax(1), margins.max(1)  # of each group: nobody looks through all pairs again
    for _ in range(len(weights) - 1):
        first = int(best.argmax())
        second = int(nearest[first])
        yield Merge(first, second, float(best[first]))
        for part in (sums, weights, squares):
            part[first] += part[second]
        one = Groups(sums, weights, squares).part(slice(first, first + 1))
        within[first] = one.within()[0]
        row = sums @ one.sums[0] / (weights * weights[first]) / np.sqrt(within * within[first])
        row -= needed(one.weights, weights)[0]
        row[margins[first] == MERGED] = MERGED
        row[second] = MERGED
        margins[first], margins[:, first] = row, row
        margins[second], margins[:, second] = MERGED, MERGED
        best[second] = MERGED
        closer = row > best
        nearest[closer], best[closer] = first, row[closer]
        for place in {first, *np.flatnonzero((nearest == first) | (nearest == second)).tolist()}:
            nearest[place] = margins[place].argmax()
            best[place] = margins[place, nearest[place]]


def cut(count: int, done: Sequence[Merge]) -> Labels:
    """The labels of `count` groups after the merges, numbered from 0 in the order of their first members."""
    labels = np.arange(count)
    for merge in done:
        labels[labels == merge.second] = merge.first
    _, first, found = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[found]


def founded(groups: Groups, margin: float) -> tuple[Labels, Groups]:
    """The larger groups that the `groups` are surely of, by number, and they themselves: at most half as many, or one
    more. Blocks are looked at one by one, so the work grows with the number of groups and not with its square."""
    labels, found, count = np.zeros(len(groups), np.int64), list[Groups](), 0
    for at in range(0, len(groups), BLOCK):
        block = groups.part(slice(at, at + BLOCK))
        steps = merges(block)
        done = list(itertools.islice(steps, len(block) // 2))
        done += itertools.takewhile(lambda step: step.margin >= margin, steps)
        mine = cut(len(block), done)
        labels[at : at + BLOCK] = count + mine
        found.append(block.joined(mine))
        count += len(found[-1])
    return labels, Groups(
        np.concatenate([one.sums for one in found]),
        np.concatenate([one.weights for one in found]),
        np.concatenate([one.squares for one in found]),
    )


def speakers(embeddings: NDArray[np.float32], seconds: Floats, *, least: int = 1, most: int | None = None) -> Labels:
    """A label for each window, -1 where it is left to others to say whose it is; at least `least` different ones and
    at most `most`, as far as there are voices enough."""
    usable = np.flatnonzero(seconds >= min(SHORTEST_SECONDS, seconds.max(initial=0.0)))
    labels = np.full(len(seconds), -1)
    if not len(usable):
        return labels
    embeddings, seconds = embeddings[usable], seconds[usable]
    groups, small = Groups.each(embeddings, seconds), np.arange(len(usable))
    while len(groups) > BLOCK:
        larger, groups = founded(groups, SAFE if least == 1 else SAFER)
        small = larger[small]
    steps = list(merges(groups))

    def after(count: int) -> Labels:
        return _with_time(cut(len(groups), steps[:count])[small], seconds)

    at = next((count for count, step in enumerate(steps) if step.margin < 0), len(steps))
    while most is not None and at < len(steps) and after(at).max() >= most:
        at += 1
    while at > 0 and after(at).max() + 1 < least:
        at -= 1
    labels[usable] = after(at)
    return labels


def _with_time(labels: Labels, seconds: Floats) -> Labels:
    """The labels, -1 for groups with too little speech to be a speaker; the rest numbered anew."""
    kept = enough(labels, seconds, int(labels.max()) + 1)
    numbers = np.where(kept, np.cumsum(kept) - 1, -1)
    found: Labels = numbers[labels]
    return found


def enough(labels: Labels, seconds: Floats, count: int) -> NDArray[np.bool_]:
    """[count]: which labels have the speech of a speaker."""
    times = np.bincount(labels, seconds, count)
    found: NDArray[np.bool_] = times >= min(LEAST_SECONDS, LEAST_SHARE * times.sum(), times.max())
    return found
