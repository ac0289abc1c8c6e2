"""The form fields that say what of a recording is heard: its channels, its sound tracks, its languages."""

from collections.abc import Sequence
from typing import Any

from transcribe.api.errors import bad_request
from transcribe.api.fields import Fields

CHANNELS = ("mix", "separate", "auto")
UNKNOWN_LANGUAGE = ("auto", "und")  # the latter is ISO 639's
LONGEST_STREAM = 200  # characters
SCHEMAS: dict[str, dict[str, Any]] = {  # of the fields, for /openapi.json
    "channels": {
        "type": "string",
        "enum": list(CHANNELS),
        "default": "mix",
        "description": "Mixed into one, each by itself with its number as speaker, or so where each has its own voice.",
    },
    "audio_stream": {
        "type": "string",
        "maxLength": LONGEST_STREAM,
        "description": "Which of a file's sound tracks: its number from 1, its title or its language.",
        "examples": ["1"],
    },
    "multilingual": {
        "type": "boolean",
        "description": "Each part in its own language, of languages[] if they are given; language=auto with two or more"
        " of them means the same.",
    },
}
FIELDS = tuple(SCHEMAS)


def parse(fields: Fields) -> dict[str, Any]:
    """Those of DecodeOptions that the fields set. Raises ApiError."""
    stream = fields.one("audio_stream") or ""
    if len(stream) > LONGEST_STREAM:
        message = f"audio_stream must be a number, a title or a language, of at most {LONGEST_STREAM} characters."
        raise bad_request(message, "audio_stream", "invalid_value")
    return {"channels": fields.choice("channels", CHANNELS, "mix"), "audio_stream": stream}


def multilingual(fields: Fields, candidates: Sequence[str]) -> bool:
    """Whether each part of the recording is to be in its own language, of `candidates` if there are any. Raises
    ApiError."""
    language = (fields.one("language") or "auto").lower()
    if not fields.given("multilingual"):
        return fields.given("language") and language in UNKNOWN_LANGUAGE and len(candidates) > 1
    wanted = fields.boolean("multilingual")
    if wanted and language not in UNKNOWN_LANGUAGE:
        message = "multilingual finds the languages out: leave language out, or send auto."
        raise bad_request(message, "multilingual", "invalid_value")
    return wanted
