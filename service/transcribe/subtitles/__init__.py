"""Subtitles that can be read, from segments and the times of their words."""

from collections.abc import Iterable

from transcribe.subtitles.breaking import Breaker
from transcribe.subtitles.pieces import pieces_of
from transcribe.subtitles.rules import READABLE, Broken, Cue, SubtitleOptions, broken
from transcribe.subtitles.timing import times
from transcribe.types import Segment

__all__ = ["READABLE", "Broken", "Cue", "SubtitleOptions", "broken_rules", "cues"]


def cues(segments: Iterable[Segment], language: str, options: SubtitleOptions, *, named: bool = False) -> list[Cue]:
    """The subtitles in order. All text is in them; docs/api.md says what they keep to. With `named`, the name of
    whoever begins to speak goes before the text."""
    pieces = pieces_of(segments, min(options.max_line_width, options.capacity), named=named)
    subtitles = Breaker(pieces, language, options).subtitles()
    return [Cue(start, end, lines) for (start, end), lines in zip(times(subtitles, options), subtitles, strict=True)]


def broken_rules(found: Iterable[Cue], options: SubtitleOptions) -> list[Broken]:
    """Every rule that these subtitles break: none, unless people speak faster than can be read."""
    return broken([(cue.start, cue.end, cue.texts) for cue in found], options)
