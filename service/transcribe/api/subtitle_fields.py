"""The fields of a request, and the parameters of a result's URL, that say how subtitles are made. Their names are those
of openai-whisper's command line where it has them."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from werkzeug.datastructures import MultiDict

from transcribe.api.errors import bad_request
from transcribe.api.fields import Fields
from transcribe.subtitles import SubtitleOptions
from transcribe.subtitles.rules import FASTEST, MOST_LINES, NARROWEST, SLOWEST, WIDEST

NAMES = ("max_line_width", "max_line_count", "max_cps", "highlight_words", "subtitles")
KINDS = ("readable", "raw")
SUBTITLES = ("srt", "vtt")  # the formats


def subtitle_options(fields: Fields, response_format: str) -> SubtitleOptions:
    """What a form asks for. Raises ApiError."""
    return _options(fields, response_format, SubtitleOptions())


def result_options(query: MultiDict[str, str], response_format: str, stored: Mapping[str, Any]) -> SubtitleOptions:
    """What a result's URL asks for; the rest as the job was created. Raises ApiError."""
    return _options(Fields(query, NAMES), response_format, SubtitleOptions.stored(stored.get("subtitles", {})))


def stored(options: SubtitleOptions) -> dict[str, Any]:
    """What `result_options` needs of them, as JSON values."""
    return {"subtitles": asdict(options)}


def _options(fields: Fields, response_format: str, base: SubtitleOptions) -> SubtitleOptions:
    kind = fields.choice("subtitles", KINDS, "raw" if base.raw else "readable")
    highlight = fields.boolean("highlight_words") if fields.given("highlight_words") else base.highlight_words
    if response_format == "srt" and fields.boolean("highlight_words"):
        raise bad_request("SubRip has no times of words; use vtt.", "highlight_words", "invalid_value")
    return replace(
        base,
        max_line_width=_whole(fields, "max_line_width", NARROWEST, WIDEST, base.max_line_width),
        max_line_count=_whole(fields, "max_line_count", 1, MOST_LINES, base.max_line_count),
        max_cps=fields.number("max_cps", SLOWEST, FASTEST, base.max_cps),
        highlight_words=highlight,
        raw=kind == "raw",
    )


def _whole(fields: Fields, name: str, low: int, high: int, default: int) -> int:
    value = fields.number(name, low, high, default)
    if value != int(value):
        raise bad_request(f"{name} must be a whole number from {low} to {high}.", name, "invalid_value")
    return int(value)
