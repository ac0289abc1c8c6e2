"""What people put right in a transcript: names for its speakers, and the text of segments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from transcribe.subtitles.rules import columns
from transcribe.types import Segment, Word

CERTAIN = 1.0  # the probability of a word that a person has read and let stand, or has written


@dataclass(frozen=True)
class Corrections:
    """A new name for each speaker that has one, by the name that the machine gave; a new text for each segment that has
    one, by the segment's id."""

    speakers: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.speakers or self.segments)

    def apply(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """The segments as they were corrected; the others, and all times of segments, stay as they are."""
        return tuple(self._corrected(segment) for segment in segments)

    def _corrected(self, segment: Segment) -> Segment:
        text = self.segments.get(segment.id)
        found = segment if text is None else _rewritten(segment, text)
        if not self.speakers:
            return found
        words = found.words and tuple(replace(word, speaker=self._name(word.speaker)) for word in found.words)
        return replace(found, speaker=self._name(found.speaker), words=words)

    def _name(self, speaker: str | None) -> str | None:
        return None if speaker is None else self.speakers.get(speaker, speaker)


def _rewritten(segment: Segment, text: str) -> Segment:
    """The segment with another text, and the white space around it that it had: texts are put together as they are."""
    stripped = segment.text.strip()
    before, _, after = segment.text.partition(stripped) if stripped else ("", "", "")
    words = None if segment.words is None else tuple(_timed(segment, text.split()))
    return replace(segment, text=f"{before}{text}{after}" if text else "", tokens=(), words=words, corrected=True)


def _timed(segment: Segment, texts: Sequence[str]) -> list[Word]:
    """The new words with times. As many words as before have the times of those, one by one. Otherwise the words at
    both ends that are as before keep theirs, and those between share the time that is left by their width."""
    old = list(segment.words or ())
    if len(texts) == len(old):
        times = [(was.start, was.end) for was in old]
    else:
        bare = [was.word.strip() for was in old]
        head = _alike(bare, texts)
        tail = _alike(bare[head:][::-1], texts[head:][::-1])
        if old and head + tail == len(old):  # words were only added: they share the time of a neighbour
            head, tail = (head - 1, tail) if head else (head, tail - 1)
        middle = old[head : len(old) - tail]
        span = (middle[0].start, middle[-1].end) if middle else (segment.start, segment.end)
        shared = _shared(texts[head : len(texts) - tail], span)
        outer = [(was.start, was.end) for was in (*old[:head], *old[len(old) - tail :])]
        times = [*outer[:head], *shared, *outer[head:]]
    spaces = [segment.text[:1].isspace()] + [True] * len(texts)
    return [
        Word(f" {text}" if space else text, start, end, CERTAIN, segment.speaker)
        for text, space, (start, end) in zip(texts, spaces, times, strict=False)
    ]


def _alike(some: Sequence[str], others: Sequence[str]) -> int:
    """How many words both begin with."""
    return ([one == other for one, other in zip(some, others, strict=False)] + [False]).index(False)


def _shared(texts: Sequence[str], span: tuple[float, float]) -> list[tuple[float, float]]:
    """Start and end of each of the texts, which share the time of the span by their width."""
    total = sum(columns(text) + 1 for text in texts)
    found, at = [], 0
    for text in texts:
        places = (at, at := at + columns(text) + 1)
        start, end = (round(span[0] + (span[1] - span[0]) * place / total, 3) for place in places)
        found.append((start, end))
    return found
