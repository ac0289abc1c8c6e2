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
BLOCK = 400  # windows that are compared with each other; of longer recordings, the groups found in each block are
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
    def of(cls, embeddings: NDArray[np.float32], seconds: Floats, labels: Labels, count: int | None = None) -> "Groups":
        """The groups 0 … `count` - 1 that `labels` make of the windows; those with others are left out."""
        if count is None:
            count = int(labels.max(initial=-1)) + 1
        member = np.equal.outer(np.arange(count), labels).astype(np.float64)
        weights = seconds / WINDOW_SECONDS
        return cls(member @ (embeddings * weights[:, None]), member @ weights, member @ weights**2)

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
    margins = groups.likeness(groups) - needed(weights, weights)
    np.fill_diagonal(margins, MERGED)
    gone = np.zeros(len(weights), np.bool_)
    for _ in range(len(weights) - 1):
        first, second = (int(place) for place in divmod(int(margins.argmax()), len(weights)))
        yield Merge(first, second, float(margins[first, second]))
        for part in (sums, weights, squares):
            part[first] += part[second]
        gone[second] = True
        now = Groups(sums, weights, squares)
        one = Groups(sums[first : first + 1], weights[first : first + 1], squares[first : first + 1])
        row = (one.likeness(now) - needed(one.weights, weights))[0]
        row[gone], row[first] = MERGED, MERGED
        margins[first], margins[:, first] = row, row
        margins[second], margins[:, second] = MERGED, MERGED


def cut(count: int, done: Sequence[Merge]) -> Labels:
    """The labels of `count` groups after the merges, numbered from 0 in the order of their first members."""
    labels = np.arange(count)
    for merge in done:
        labels[labels == merge.second] = merge.first
    _, first, found = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[found]


def founded(embeddings: NDArray[np.float32], seconds: Floats, margin: float) -> Labels:
    """Labels of windows in groups that are surely one speaker's each. The work grows with the length of the recording,
    not with its square: blocks are looked at one by one."""
    labels = np.zeros(len(seconds), np.int64)
    count = 0
    for at in range(0, len(seconds), BLOCK):
        part = slice(at, at + BLOCK)
        size = len(seconds[part])
        steps = merges(Groups.of(embeddings[part], seconds[part], np.arange(size)))
        labels[part] = count + cut(size, list(itertools.takewhile(lambda step: step.margin >= margin, steps)))
        count = int(labels[part].max()) + 1
    return labels


def speakers(embeddings: NDArray[np.float32], seconds: Floats, *, least: int = 1, most: int | None = None) -> Labels:
    """A label for each window, -1 where it is left to others to say whose it is; at least `least` different ones and
    at most `most`, as far as there are voices enough."""
    usable = np.flatnonzero(seconds >= min(SHORTEST_SECONDS, seconds.max(initial=0.0)))
    labels = np.full(len(seconds), -1)
    if not len(usable):
        return labels
    embeddings, seconds = embeddings[usable], seconds[usable]
    small = np.arange(len(usable))
    if len(usable) > BLOCK:
        small = founded(embeddings, seconds, SAFE if least == 1 else SAFER)
    groups = Groups.of(embeddings, seconds, small)
    steps = list(merges(groups))

    def after(count: int) -> Labels:
        return _with_time(cut(len(groups.weights), steps[:count])[small], seconds)

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
