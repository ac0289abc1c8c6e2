"""Subtitles that can be read, from segments and the times of their words."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from transcribe.subtitles.breaking import Breaker
from transcribe.subtitles.pieces import pieces_of
from transcribe.subtitles.rules import READABLE, Broken, Cue, SubtitleOptions, broken
from transcribe.subtitles.timing import times
from transcribe.types import Segment

__all__ = ["READABLE", "Broken", "Cue", "SubtitleOptions", "broken_rules", "cues"]


def cues(segments: Iterable[Segment], language: str, options: SubtitleOptions, *, named: bool = False) -> list[Cue]:
    """The subtitles in order. All text is in them; docs/api.md says what they keep to. With `named`, the name of
    whoever begins to speak goes before the text. Those of channels that were heard each by itself overlap where their
    speech does."""
    turns = groupby(segments, lambda segment: segment.speaker)
    channels: dict[int | None, list[tuple[int, Segment]]] = {}
    for number, (_, turn) in enumerate(turns):
        for segment in turn:
            channels.setdefault(segment.channel, []).append((number, segment))
    found = [cue for channel, own in channels.items() for cue in _cues(own, channel, language, options, named=named)]
    return sorted(found, key=lambda cue: cue.start)


def _cues(
    segments: Iterable[tuple[int, Segment]],
    channel: int | None,
    language: str,
    options: SubtitleOptions,
    *,
    named: bool,
) -> Iterator[Cue]:
    """Those of one channel."""
    pieces = pieces_of(segments, min(options.max_line_width, options.capacity), named=named)
    subtitles = Breaker(pieces, language, options).subtitles()
    for (start, end), lines in zip(times(subtitles, options), subtitles, strict=True):
        yield Cue(start, end, lines, channel)


def broken_rules(found: Sequence[Cue], options: SubtitleOptions) -> list[Broken]:
    """Every rule that these subtitles break: none, unless people speak faster than can be read."""
    entries = [(cue.start, cue.end, cue.texts) for cue in found]
    return broken(entries, options, [cue.channel for cue in found])
