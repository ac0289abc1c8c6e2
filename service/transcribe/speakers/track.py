"""Who speaks when in a recording: how much each moment sounds like each of its speakers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transcribe.speakers import clustering
from transcribe.speakers.clustering import Floats, Groups, Labels, needed
from transcribe.speakers.windows import Span, Voices
from transcribe.types import SpeakerOptions

ROUNDS = 5  # of moving windows to the speaker that they sound most like; fewer when nothing moves
EDGE = 0.1  # what a window's edge counts for; its middle counts for half a window more
FOREIGN = 0.05  # so much less a voice that was given may be like the same one in the recording


@dataclass(frozen=True)
class Track:
    """`likeness` [n, speakers] of each window (start, end in seconds) of the recording, in order; `names` of the
    speakers, None for those that nobody named; `spans` of unbroken speech, in order; `end` (seconds) of what was
    heard, after which no turn ends."""

    windows: NDArray[np.float64]
    likeness: Floats
    names: tuple[str | None, ...]
    spans: tuple[Span, ...] = ()
    end: float = math.inf

    def at(self, start: float, end: float) -> Floats:
        """[speakers]: the mean likeness of what was heard between these moments, or else nearest to them."""
        if not len(self.windows):
            return np.zeros(len(self.names))
        begins, ends = self.windows[:, 0], self.windows[:, 1]
        first = max(0, int(np.searchsorted(ends, start)) - 1)  # neither begins nor ends go back
        last = int(np.searchsorted(begins, end)) + 1
        begins, ends = begins[first:last], ends[first:last]
        shared = np.minimum(ends, end) - np.maximum(begins, start)
        if shared.max() <= 0:
            shared = (shared >= shared.max() - 1e-6).astype(np.float64)
        middle = np.clip((start + end) / 2, begins, ends)
        depth = np.minimum(middle - begins, ends - middle) / np.maximum(ends - begins, 1e-6)
        weights = np.maximum(shared, 0.0) * (EDGE + depth)
        found: Floats = weights @ self.likeness[first:last] / weights.sum()
        return found


@dataclass
class _Candidates:
    """Speakers that may be in the recording: `own` [n, d] is what is known of each from elsewhere (sums of embeddings,
    or zeros), `centres` [n, d] how each sounds."""

    names: list[str | None]
    own: Floats
    centres: Floats

    def likeness(self, voices: Voices) -> Floats:
        """[windows, n]: cosines."""
        found: Floats = voices.embeddings @ _unit(self.centres).T
        return found

    def learn(self, voices: Voices, labels: Labels) -> None:
        """Moves the centres to the windows that have their labels."""
        heard = Groups.of(voices.embeddings, voices.seconds, labels, len(self.names))
        used = heard.weights > 0
        self.centres = np.where(used[:, None], heard.sums + self.own, self.centres)

    def keep(self, places: NDArray[np.int64]) -> None:
        """Forgets the others."""
        self.names = [self.names[place] for place in places]
        self.own, self.centres = self.own[places], self.centres[places]


def tell_apart(voices: Voices, options: SpeakerOptions, known: Mapping[str, Voices]) -> Track:
    """The speakers of a recording, among them those whose voices are `known`, by name."""
    labels = clustering.speakers(
        voices.embeddings, voices.seconds, least=options.min_speakers or 1, most=options.max_speakers
    )
    if not (labels >= 0).any():
        return Track(voices.windows, np.zeros((len(voices.windows), 1)), (None,), voices.spans)
    groups = Groups.of(voices.embeddings, voices.seconds, labels)
    candidates = _candidates(groups, known, options.max_speakers)
    labels = candidates.likeness(voices).argmax(1)
    for _ in range(ROUNDS):
        candidates.learn(voices, labels)
        before, labels = labels, candidates.likeness(voices).argmax(1)
        if (before == labels).all():
            break
    candidates.keep(np.flatnonzero(clustering.enough(labels, voices.seconds, len(candidates.names))))
    return Track(voices.windows, candidates.likeness(voices), tuple(candidates.names), voices.spans)


def _candidates(groups: Groups, known: Mapping[str, Voices], most: int | None) -> _Candidates:
    """The groups, by the names of the known voices that they are like, and the voices that are like none of them."""
    references = [
        Groups.of(voice.embeddings, voice.seconds, np.zeros(len(voice.windows), int)) for voice in known.values()
    ]
    owner = _owners(groups, references)
    names: list[str | None] = []
    own, centres = [], []
    for name, reference, number in zip(known, references, range(len(references)), strict=True):
        mine = groups.sums[owner == number].sum(0)
        if mine.any() or most is None or len(names) + int((owner < 0).sum()) < most:
            names.append(name)
            own.append(reference.sums[0])
            centres.append(reference.sums[0] + mine)
    for sums in groups.sums[owner < 0]:
        names.append(None)
        own.append(np.zeros_like(sums))
        centres.append(sums)
    return _Candidates(names, np.array(own), np.array(centres))


def _owners(groups: Groups, references: list[Groups]) -> Labels:
    """[groups]: the number of the reference whose voice the group is, or -1."""
    owner = np.full(len(groups.weights), -1)
    if not references:
        return owner
    margins = np.concatenate([groups.likeness(r) - needed(groups.weights, r.weights) for r in references], 1)
    best = margins.argmax(1)
    for number in range(len(references)):
        mine = np.flatnonzero(best == number)
        if len(mine):
            sure = mine[margins[mine, number] >= 0]
            closest = mine[margins[mine, number].argmax()]
            owner[sure] = number
            if margins[closest, number] >= -FOREIGN:
                owner[closest] = number
    return owner


def _unit(vectors: Floats) -> Floats:
    found: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return found
