"""Subtitles as SubRip and WebVTT."""

import re
from collections.abc import Iterable, Sequence

from transcribe.subtitles.rules import Cue, Piece

ARROW = re.compile(r"-{2,}>")

Entry = tuple[int, int, Sequence[str]]  # start and end in ms, and the lines


def srt(entries: Iterable[Entry]) -> str:
    """SubRip: numbered subtitles; an arrow inside the text would start another one for some players."""
    return "".join(
        f"{number}\n{clock(start, ',')} --> {clock(end, ',')}\n{ARROW.sub('->', _whole(lines))}\n\n"
        for number, (start, end, lines) in enumerate(entries, start=1)
    )


def vtt(entries: Iterable[Entry], notes: Iterable[str]) -> str:
    """WebVTT of lines that are escaped already."""
    head = (f"NOTE {ARROW.sub('->', note)}\n" for note in notes)
    cues = (f"{clock(start, '.')} --> {clock(end, '.')}\n{_whole(lines)}\n" for start, end, lines in entries)
    return "\n".join(("WEBVTT\n", *head, *cues))


def plain(cue: Cue) -> list[str]:
    """The lines for WebVTT."""
    first, *others = map(escaped, cue.texts)
    return [voice(cue.speaker) + first, *others]


def highlighted(cue: Cue) -> list[str]:
    """The lines for WebVTT with the time of each word before it (https://www.w3.org/TR/webvtt1/#webvtt-timestamp)."""
    first, *others = _Karaoke(cue).lines
    return [voice(cue.speaker) + first, *others]


def voice(speaker: str | None) -> str:
    """The beginning of WebVTT's span for what somebody says; it ends with the subtitle."""
    return f"<v {escaped(' '.join(speaker.split()))}>" if speaker else ""


class _Karaoke:
    def __init__(self, cue: Cue) -> None:
        self._at, self._end = cue.start, cue.end  # a time must be later than the one before, and within the subtitle
        self.lines = ["".join(self._word(one, number) for number, one in enumerate(line)) for line in cue.lines]

    def _word(self, piece: Piece, number: int) -> str:
        text = escaped(f" {piece.text}" if piece.space and number else piece.text)
        if not self._at < piece.start < self._end:
            return text
        self._at = piece.start
        return f"<{clock(piece.start, '.')}>{text}"


def escaped(line: str) -> str:
    """The text as https://www.w3.org/TR/webvtt1/#cue-text asks."""
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clock(milliseconds: int, point: str) -> str:
    """`HH:MM:SS` and milliseconds after `point`; hours grow as they must."""
    whole, milliseconds = divmod(milliseconds, 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{milliseconds:03d}"


def _whole(lines: Sequence[str]) -> str:
    return "\n".join(lines)
