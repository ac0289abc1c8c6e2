"""What the command line asks for, checked. Everything that cannot be done is a ValueError of one line that names the
option."""

import argparse
from pathlib import Path

from transcribe.config import ServiceConfig
from transcribe.languages import to_code
from transcribe.speakers.names import LONGEST_NAME, MOST_KNOWN, MOST_SPEAKERS, on_one_line, usable
from transcribe.subtitles import SubtitleOptions
from transcribe.subtitles.rules import FASTEST, MOST_LINES, NARROWEST, SLOWEST, WIDEST
from transcribe.types import DecodeOptions, SpeakerOptions

MOST_TEMPERATURE = 1.0
WITH_WORD_TIMES = {"srt", "vtt"}  # formats that need them
KNOWN = "--known-speaker"


def decode_options(config: ServiceConfig, options: argparse.Namespace) -> DecodeOptions:
    """What the command line asks of the model. Raises ValueError."""
    candidates = tuple(dict.fromkeys(_code(name) for name in options.languages.split(",") if name.strip()))
    multilingual = options.multilingual or (options.language == "auto" and len(candidates) > 1)
    if options.multilingual and options.language not in (None, "", "auto"):
        raise ValueError("--multilingual finds the languages out: leave --language out, or say auto")
    asked = options.language
    if asked is None:
        asked = config.model.language if not candidates else candidates[0] if len(candidates) == 1 else "auto"
    if not 0.0 <= options.temperature <= MOST_TEMPERATURE:
        raise ValueError(f"--temperature must be a number from 0 to {MOST_TEMPERATURE:g}")
    task = options.task or config.model.task
    return DecodeOptions(
        language=None if multilingual or asked in ("", "auto") else _code(asked),
        candidates=candidates,
        multilingual=multilingual,
        task=task,
        prompt=options.prompt,
        hotwords=options.hotwords,
        temperature=options.temperature,
        words=options.words or options.logprobs or bool(WITH_WORD_TIMES.intersection(options.formats)),
        channels=options.channels,
        audio_stream=options.audio_stream,
        speakers=_speakers(options, task),
    )


def _code(name: str) -> str:
    code = to_code(name)
    if code is None:
        raise ValueError(f"no language is called {name!r}: use a code such as sv, or auto")
    return code


def asking_for_speakers(options: argparse.Namespace) -> str:
    """The first option that asks for them; '' if none does."""
    asking = {
        "--speakers": options.speakers,
        "--format diarized_json": "diarized_json" in options.formats,
        "--min-speakers": options.min_speakers is not None,
        "--max-speakers": options.max_speakers is not None,
        KNOWN: options.known_speaker,
    }
    return next((option for option, given in asking.items() if given), "")


def _speakers(options: argparse.Namespace, task: str) -> SpeakerOptions | None:
    """Whose voices are to be told apart, if any."""
    low, high = options.min_speakers, options.max_speakers
    names = tuple(name for name, _ in known_speakers(options))
    asked = asking_for_speakers(options)
    if not asked:
        return None
    if task == "translate":
        raise ValueError(f"{asked}: speakers can be told apart in a transcription only, not in a translation")
    for option, count in (("--min-speakers", low), ("--max-speakers", high)):
        if count is not None and not 1 <= count <= MOST_SPEAKERS:
            raise ValueError(f"{option} must be a whole number from 1 to {MOST_SPEAKERS}")
    if low and high and low > high:
        raise ValueError("--min-speakers is more than --max-speakers")
    if high and high < len(names):
        raise ValueError(f"--max-speakers is less than the {len(names)} known ones")
    return SpeakerOptions(low, high, names)


def known_speakers(options: argparse.Namespace) -> list[tuple[str, Path]]:
    """The names of known speakers, each with a recording of the voice. Raises ValueError."""
    found = []
    for given in options.known_speaker:
        name, separator, file = given.partition("=")
        if not (separator and name.strip() and file):
            raise ValueError(f"{KNOWN} must be NAME=FILE, such as Anna=anna.wav, not {given!r}")
        found.append((on_one_line(name), Path(file)))
    if len(found) > MOST_KNOWN:
        raise ValueError(f"{KNOWN} may be given {MOST_KNOWN} times at most")
    if not usable([name for name, _ in found]):
        message = f"{KNOWN} must have different names of at most {LONGEST_NAME} characters, without control characters"
        raise ValueError(message)
    return found


def subtitle_options(options: argparse.Namespace) -> SubtitleOptions:
    """How the command line wants subtitles. Raises ValueError."""
    for name, low, high in (
        ("max_line_width", NARROWEST, WIDEST),
        ("max_line_count", 1, MOST_LINES),
        ("max_cps", SLOWEST, FASTEST),
    ):
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"--{name} must be a number from {low:g} to {high:g}")
    if options.highlight_words and "vtt" not in options.formats:
        raise ValueError("--highlight_words needs --format vtt: no other format has times of words in its text")
    if options.logprobs and "json" not in options.formats:
        raise ValueError("--logprobs needs --format json")
    return SubtitleOptions(
        max_line_width=options.max_line_width,
        max_line_count=options.max_line_count,
        max_cps=options.max_cps,
        highlight_words=options.highlight_words,
        raw=options.subtitles == "raw",
    )
