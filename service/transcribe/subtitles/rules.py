"""The rules that subtitles keep, and a check of them.

Width, lines, speed, durations and gap are those of Netflix's timed text style guide for adults' programmes in most
languages that are written with letters: 42 characters, two lines, 17 characters a second, 5/6 s to 7 s, two frames (of
25 a second) between subtitles. A wide character, such as a Chinese one, counts as two; a combining mark as none.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import msgspec

SHORTEST = 833  # ms: five sixths of a second
LONGEST = 7000  # ms
GAP = 80  # ms between two subtitles
PAUSE = 1500  # ms of silence that no subtitle spans
LEAD = 1000  # ms that a subtitle may begin before its first word
LAG = 3000  # ms that it may stay on after its last
WIDEST, NARROWEST = 200, 10  # columns that a line may be given
MOST_LINES = 4
FASTEST, SLOWEST = 60.0, 5.0  # columns a second


@dataclass(frozen=True)
class SubtitleOptions:
    """How subtitles are to be made. With `raw` each segment is one, as Whisper cut it; with `highlight_words` WebVTT
    has the time of each word."""

    max_line_width: Annotated[int, msgspec.Meta(ge=NARROWEST, le=WIDEST)] = 42
    max_line_count: Annotated[int, msgspec.Meta(ge=1, le=MOST_LINES)] = 2
    max_cps: Annotated[float, msgspec.Meta(ge=SLOWEST, le=FASTEST)] = 17.0
    highlight_words: bool = False
    raw: bool = False

    @classmethod
    def stored(cls, found: object) -> "SubtitleOptions":
        """What was stored as JSON values. Fields of later versions are passed over; what cannot be used is as if nobody
        had asked for anything."""
        try:
            return msgspec.convert(found, cls)
        except msgspec.ValidationError:
            return READABLE

    @property
    def capacity(self) -> int:
        """Columns that fit in one subtitle: in its lines, and in the longest time that it may stay."""
        return min(self.max_line_width * self.max_line_count, int(self.max_cps * LONGEST / 1000))

    def reading_time(self, width: int) -> int:
        """Milliseconds that a text of so many columns must stay."""
        return max(SHORTEST, -int(-width * 1000 // self.max_cps))


READABLE = SubtitleOptions()


@dataclass(frozen=True)
class Piece:
    """What is never cut: a word, or a character of a script without spaces. Times in ms; `space`: before it; `turn`: by
    number, somebody's turn that it is in."""

    text: str
    space: bool
    start: int
    end: int
    speaker: str | None = None
    turn: int = 0

    @property
    def width(self) -> int:
        """Its columns."""
        return columns(self.text)


@dataclass(frozen=True)
class Cue:
    """One subtitle, with the pieces of each line. Times in ms; `channel`, from 0, where each is heard by itself."""

    start: int
    end: int
    lines: tuple[tuple[Piece, ...], ...]
    channel: int | None = None

    @property
    def texts(self) -> list[str]:
        """Its lines."""
        return [joined(line) for line in self.lines]

    @property
    def speaker(self) -> str | None:
        """Who says it, if that is known."""
        return self.lines[0][0].speaker


@dataclass(frozen=True)
class Broken:
    """A rule that a subtitle breaks; subtitles are numbered from 1."""

    number: int
    rule: str
    found: str


def same_turn(one: Piece, other: Piece) -> bool:
    """Whether nobody else begins to speak between the two."""
    return (one.speaker, one.turn) == (other.speaker, other.turn)


def joined(pieces: Sequence[Piece]) -> str:
    """The pieces as one line."""
    return "".join(f" {one.text}" if one.space and number else one.text for number, one in enumerate(pieces))


def columns(text: str) -> int:
    """How wide the text is."""
    return len(text) if text.isascii() else sum(map(_columns, text))


@cache
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def broken(
    cues: Sequence[tuple[int, int, Sequence[str]]], options: SubtitleOptions, channels: Sequence[int | None] = ()
) -> list[Broken]:
    """Every rule that the subtitles, each with start and end in ms and its lines, break. Those of different `channels`
    may overlap."""
    found: list[Broken] = []
    ends: dict[int | None, int] = {}  # of the last subtitle of each channel
    for number, ((start, end, lines), channel) in enumerate(zip(cues, channels or [None] * len(cues), strict=True), 1):
        before = ends.get(channel)
        widths = [columns(line) for line in lines]
        allowed = options.reading_time(sum(widths))
        for rule, bad, value in (
            ("line too wide", max(widths, default=0) > options.max_line_width, f"{max(widths, default=0)} columns"),
            ("too many lines", len(widths) > options.max_line_count, f"{len(widths)}"),
            ("empty", not any(widths) and not any(lines), ""),
            ("too short", end - start < SHORTEST, f"{end - start} ms"),
            ("too fast", end - start < allowed, f"{end - start} ms of {allowed}"),
            ("too long", end - start > LONGEST, f"{end - start} ms"),
            ("too close", before is not None and start < before + GAP, f"{start - (before or 0)} ms"),
        ):
            if bad:
                found.append(Broken(number, rule, value))
        ends[channel] = end
    return found
