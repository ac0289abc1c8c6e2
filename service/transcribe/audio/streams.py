"""The sound tracks of a file, and the one that a client asks for by number, title or language."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transcribe.audio.errors import AudioError, Limits
from transcribe.audio.ffmpeg import probe
from transcribe.languages import to_code

ENTRIES = "stream=codec_type:stream_tags=title,language"
LONGEST_TITLE = 60  # characters that are shown: the file is not trusted
MOST_SHOWN = 20


@dataclass(frozen=True)
class AudioStream:
    """A sound track: its number, from 1, and what the file says of it, or ''."""

    number: int
    title: str = ""
    language: str = ""

    def __str__(self) -> str:
        said = ", ".join(filter(None, (self.language, self.title and f'"{self.title}"')))
        return f"{self.number} ({said})" if said else str(self.number)


def audio_streams(path: Path, limits: Limits) -> list[AudioStream]:
    """The file's sound tracks; [] if it cannot be read."""
    streams = probe(path, limits, ENTRIES).get("streams", [])
    sounds = [stream for stream in streams if stream.get("codec_type") == "audio"]
    return [AudioStream(number, *_tags(sound)) for number, sound in enumerate(sounds, start=1)]


def chosen(streams: Sequence[AudioStream], wanted: str) -> AudioStream:
    """The one that `wanted` names. Raises AudioError, which lists them, if it names none or several."""
    asked = wanted.strip().casefold()
    code = to_code(asked)
    kinds = (
        [stream for stream in streams if str(stream.number) == asked],
        [stream for stream in streams if stream.title.casefold() == asked],
        [stream for stream in streams if code and to_code(stream.language) == code],
    )
    found = next(filter(None, kinds), [])
    if len(found) == 1:
        return found[0]
    problem = "names more than one audio stream" if found else "names no audio stream"
    shown = ", ".join(map(str, streams[:MOST_SHOWN]))
    message = f"{_printable(wanted)!r} {problem} of the file, which has: {shown}"
    raise AudioError(message, code="audio_stream_not_found", param="audio_stream")


def _tags(stream: dict[str, Any]) -> tuple[str, str]:
    tags = {str(name).lower(): _printable(value) for name, value in stream.get("tags", {}).items()}
    language = tags.get("language", "")
    return tags.get("title", ""), "" if language == "und" else language


def _printable(text: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(text))[:LONGEST_TITLE].strip()
