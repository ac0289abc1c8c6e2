"""Where two people speak at once, as far as the times of what they say tell. Voices that were mixed into one channel
get no text at the same time, so only channels that are heard each by itself overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

from transcribe.types import Segment, Word

SURE_SECONDS = 0.1  # of a shared time: times of words are not exact


@dataclass(frozen=True)
class Overlaps:
    """What is said while somebody else speaks: the places of `segments` in their list, and those of `words`, each as
    the segment's and the word's in it."""

    segments: frozenset[int] = frozenset()
    words: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class _Piece:
    """A word, or a segment that has none (`word` is -1)."""

    start: float
    end: float
    who: tuple[int | None, str | None]
    segment: int
    word: int

    def overlaps(self, other: "_Piece") -> bool:
        """Whether they do so surely: for some time, or for all of the shorter one's."""
        shared = min(self.end, other.end) - max(self.start, other.start)
        return shared > 0 and shared >= min(SURE_SECONDS, self.end - self.start, other.end - other.start)


def found(segments: Sequence[Segment]) -> Overlaps:
    """Where speakers overlap. Of segments that have words the words count, so that nothing overlaps in their pauses."""
    spoken: list[_Piece] = []
    over: set[_Piece] = set()
    for piece in sorted(_pieces(segments), key=lambda one: one.start):
        spoken = [one for one in spoken if one.end > piece.start]
        for other in spoken:
            if other.who != piece.who and piece.overlaps(other):
                over |= {piece, other}
        spoken.append(piece)
    words = frozenset((one.segment, one.word) for one in over if one.word >= 0)
    return Overlaps(frozenset(one.segment for one in over), words)


def _pieces(segments: Sequence[Segment]) -> list[_Piece]:
    if len({(one.channel, one.speaker) for one in segments}) < 2:  # as nearly always
        return []
    pieces = []
    for place, segment in enumerate(segments):
        said: Sequence[Word | Segment] = segment.words or (segment,)
        numbers = range(len(said)) if segment.words else (-1,)
        who = segment.channel, segment.speaker
        pieces += [_Piece(one.start, one.end, who, place, number) for number, one in zip(numbers, said, strict=True)]
    return pieces
