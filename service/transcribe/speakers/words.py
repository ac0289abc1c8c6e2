"""Whose each word is. Turns are cut at words: a segment in which the speaker changes becomes several."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from string import ascii_uppercase

import numpy as np

from transcribe.speakers.track import Track
from transcribe.speakers.windows import Span
from transcribe.types import Segment, Word

SHORTEST_SECONDS = 0.1  # a word counts for so much at least: times of words are not exact
CHANGE = 0.15  # what a change of speaker must gain, in seconds of speech times likeness, where nobody pauses …
PAUSE_SECONDS = 0.2  # … and half of it after a pause of this length
# A turn ends with its speech, not with its last word as far as that is known. Measured with whisper-base on mixtures of
# readers and on meetings, by the diarization error.
EDGE_SECONDS = 0.2  # what a turn has of the silence around its speech, at most
FAR_SECONDS = 0.5  # so far speech may go on beyond the words, and words beyond their speech: what is more is silence
BREATH_SECONDS = 0.5  # a shorter silence within a turn is part of it
SENTENCE_ENDS = ".?!。？！…"
Tokens = Callable[[str], Sequence[int]]


def assign(segments: Sequence[Segment], track: Track, tokens: Tokens) -> list[Segment]:
    """The segments with `speaker` set, each one speaker's, numbered anew; `tokens` gives those of a piece of text. They
    begin and end with the speech that their words are in.

    Speakers that have no name are A, B, … in the order in which they first speak.
    """
    pieces = [piece for segment in segments for piece in _pieces(segment)]
    owners = path(pieces, track)
    labels = _labels(owners, track.names)
    found: list[Segment] = []
    at = 0
    for segment in segments:
        count = len(segment.words) if segment.words else 1
        found += [_near(turn, track.spans) for turn in _cut(segment, owners[at : at + count], labels, tokens)]
        at += count
    return [replace(segment, id=number) for number, segment in enumerate(fitted(found, track.spans, track.end))]


def _pieces(segment: Segment) -> Iterable[Word | Segment]:
    """What is one speaker's: the words, or all of a segment that has none."""
    return segment.words or (segment,)


def path(pieces: Sequence[Word | Segment], track: Track) -> list[int]:
    """The speaker of each piece: the likeliest sequence, where a change costs something (Viterbi's algorithm)."""
    if not pieces:
        return []
    heard = [track.at(piece.start, piece.end) * max(piece.end - piece.start, SHORTEST_SECONDS) for piece in pieces]
    best = heard[0]
    came = []
    for before, piece, gain in zip(pieces, pieces[1:], heard[1:], strict=False):
        change = best.max() - _cost(before, piece)
        stays = best >= change
        came.append(np.where(stays, np.arange(len(best)), best.argmax()))
        best = np.where(stays, best, change) + gain
    owners = [int(best.argmax())]
    for step in reversed(came):
        owners.append(int(step[owners[-1]]))
    return owners[::-1]


def _cost(before: Word | Segment, piece: Word | Segment) -> float:
    """What a change of speaker between the two costs."""
    pause = max(0.0, piece.start - before.end)
    text = before.word if isinstance(before, Word) else before.text
    ends = text.strip()[-1:] in SENTENCE_ENDS
    return CHANGE / (1.0 + pause / PAUSE_SECONDS) * (0.5 if ends else 1.0)


def _labels(owners: Iterable[int], names: Sequence[str | None]) -> dict[int, str]:
    """The name of each speaker who says something."""
    taken = {name for name in names if name is not None}
    letters = (letter for letter in _letters() if letter not in taken)
    return {owner: names[owner] or next(letters) for owner in dict.fromkeys(owners)}


def _letters() -> Iterator[str]:
    """A to Z, then AA to AZ and so on."""
    yield from ascii_uppercase
    for first in _letters():
        yield from (first + letter for letter in ascii_uppercase)


def _cut(segment: Segment, owners: Sequence[int], labels: dict[int, str], tokens: Tokens) -> list[Segment]:
    """The segment as one for each turn of a speaker in it."""
    if not segment.words:
        return [replace(segment, speaker=labels[owners[0]])]
    words = [replace(word, speaker=labels[owner]) for word, owner in zip(segment.words, owners, strict=True)]
    turns = [tuple(turn) for _, turn in groupby(words, key=lambda word: word.speaker)]
    if len(turns) == 1:
        return [replace(segment, speaker=words[0].speaker, words=turns[0])]
    found = []
    for turn in turns:
        text = "".join(word.word for word in turn)
        piece = replace(segment, text=text, tokens=tuple(tokens(text)), words=turn)
        found.append(replace(piece, speaker=turn[0].speaker))
    return found


def _near(turn: Segment, spans: Sequence[Span]) -> Segment:
    """The turn, its outer words not further than FAR_SECONDS from the speech in it. Whisper draws words out over the
    silence that is beside them."""
    if not turn.words:
        return turn
    first, last = turn.words[0], turn.words[-1]
    begin = bisect_right(spans, first.start, key=lambda span: span[1])
    end = bisect_left(spans, last.end, key=lambda span: span[0])
    if begin >= end:
        return turn  # no speech was heard there: nothing is known but the words
    start = min(max(first.start, spans[begin][0] - FAR_SECONDS), first.end)
    words = [replace(first, start=round(start, 3)), *turn.words[1:]]
    stop = max(min(last.end, spans[end - 1][1] + FAR_SECONDS), words[-1].start)
    words[-1] = replace(words[-1], end=round(stop, 3))
    return replace(turn, words=tuple(words))


def fitted(segments: Sequence[Segment], spans: Sequence[Span], until: float) -> list[Segment]:
    """The segments from where the speech of their words begins to where it ends, none over another, and none drawn out
    beyond `until` (seconds), where the recording ends."""
    said = [(one.words[0].start, one.words[-1].end) if one.words else (one.start, one.end) for one in segments]
    afters = [*(start for start, _ in said[1:]), until][: len(said)]
    found: list[Segment] = []
    place = 0  # of the first span that may touch the next segment
    for segment, times, after in zip(segments, said, afters, strict=True):
        before = found[-1].end if found else 0.0
        while place < len(spans) and spans[place][1] + EDGE_SECONDS < times[0]:
            place += 1
        start, end = _reach(times, spans, place, before, after)
        if found and found[-1].speaker == segment.speaker and 0 < start - before < BREATH_SECONDS:
            found[-1] = replace(found[-1], end=round(start, 3))
        found.append(replace(segment, start=round(start, 3), end=round(max(start, end), 3)))
    return found


def _reach(times: Span, spans: Sequence[Span], place: int, before: float, after: float) -> Span:
    """Where the speech begins and ends that the words between the `times` are in, not beyond their neighbours; spans
    before `place` do not touch them."""
    start, end = first, last = times
    for number in range(place, len(spans)):
        opens, closes = spans[number]
        if opens - EDGE_SECONDS > last:
            break
        if opens - EDGE_SECONDS < first <= closes + EDGE_SECONDS:
            start = min(first, max(opens - EDGE_SECONDS, first - FAR_SECONDS, before))
        if last < closes + EDGE_SECONDS:
            end = max(last, min(closes + EDGE_SECONDS, last + FAR_SECONDS, after))
    return start, end
