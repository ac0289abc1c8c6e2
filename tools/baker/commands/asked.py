"""What `submit` asks for: how recordings are heard, and what is written of them."""

import argparse

from transcribe.fleet.layout import TRANSCRIPTS
from transcribe.languages import to_code
from transcribe.speakers.names import MOST_SPEAKERS
from transcribe.types import DecodeOptions, SpeakerOptions

from baker.errors import UsageError
from baker.fleet.jobs import Wanted

DIARIZED = "diarized_json"


def wanted(options: argparse.Namespace) -> Wanted:
    """The same, checked. Raises UsageError."""
    if options.format not in TRANSCRIPTS:
        raise UsageError(f"--format must be one of {', '.join(TRANSCRIPTS)}")
    if options.multilingual and options.language:
        raise UsageError("--multilingual finds the languages out: leave --language out")
    language = _code("--language", options.language) if options.language else None
    named = [name.strip() for name in options.languages.split(",") if name.strip()]
    candidates = tuple(dict.fromkeys(_code("--languages", name) for name in named))
    if len(candidates) == 1 and not (language or options.multilingual):
        language = candidates[0]
    asked = DecodeOptions(
        language=language,
        candidates=candidates,
        multilingual=options.multilingual,
        words=True,
        channels=options.channels,
        speakers=_speakers(options),
    )
    default = language is None and not candidates
    return Wanted(asked, options.format, options.priority, default_language=default, again=options.again)


def _code(option: str, name: str) -> str:
    code = to_code(name)
    if code is None:
        raise UsageError(f"{option} {name}: use a code such as sv, or a name such as Swedish")
    return code


def _speakers(options: argparse.Namespace) -> SpeakerOptions | None:
    low, high = options.min_speakers, options.max_speakers
    for option, count in (("--min-speakers", low), ("--max-speakers", high)):
        if count is not None and not 1 <= count <= MOST_SPEAKERS:
            raise UsageError(f"{option} must be a whole number from 1 to {MOST_SPEAKERS}")
    if low and high and low > high:
        raise UsageError("--min-speakers is more than --max-speakers")
    asked = options.speakers or options.format == DIARIZED or low or high
    return SpeakerOptions(low, high) if asked else None
