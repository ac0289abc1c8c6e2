"""A finished transcript as text, subtitles or OpenAI's JSON."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

from .languages import name_of
from .types import Segment, Transcript

SPACE = re.compile(r"\s+")
ARROW = re.compile(r"-{2,}>")
NOBODY = "unknown"  # the speaker of a segment that has none, where a name is required


@dataclass(frozen=True)
class TranscriptionResult:
    """A transcript with what the response formats also need: task, granularities, the coverage report, and the model
    that it is of ('' if nobody asks)."""

    transcript: Transcript
    task: str = "transcribe"
    granularities: tuple[str, ...] = ("segment",)
    logprobs: bool = False
    coverage: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""


def text(answer: TranscriptionResult) -> str:
    """The words alone, on one line; with speakers, each turn on its own line after its speaker's name."""
    turns = groupby(_lines(answer), lambda pair: pair[0].speaker)
    spoken = [(speaker, " ".join(line for _, line in lines)) for speaker, lines in turns]
    if all(speaker is None for speaker, _ in spoken):
        return f"{answer.transcript.text}\n"
    return "".join(f"{_named(speaker)}{words}\n" for speaker, words in spoken)


def srt(answer: TranscriptionResult) -> str:
    """SubRip: numbered cues; an arrow inside the text would start another cue for some players."""
    return "".join(
        f"{number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n"
        f"{ARROW.sub('->', _named(segment.speaker) + line)}\n\n"
        for number, (segment, line) in enumerate(_lines(answer), start=1)
    )


def vtt(answer: TranscriptionResult) -> str:
    """WebVTT, its text escaped as https://www.w3.org/TR/webvtt1/#cue-text asks; a speaker is a voice span."""
    cues = (
        f"{clock(segment.start, '.')} --> {clock(segment.end, '.')}\n{_voice(segment.speaker)}{_escaped(line)}\n"
        for segment, line in _lines(answer)
    )
    notes = (f"NOTE {ARROW.sub('->', warning)}\n" for warning in warnings(answer))
    return "\n".join(("WEBVTT\n", *notes, *cues))


def tsv(answer: TranscriptionResult) -> str:
    """Whisper's table: start and end in milliseconds, and the text; the speaker last, if speakers were asked for."""
    lines = _lines(answer)
    named = any(segment.speaker for segment, _ in lines)
    rows = (
        f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{line}"
        + (f"\t{segment.speaker or ''}\n" if named else "\n")
        for segment, line in lines
    )
    return "".join(("start\tend\ttext\tspeaker\n" if named else "start\tend\ttext\n", *rows))


def json(answer: TranscriptionResult) -> dict[str, Any]:
    """OpenAI's short form; with speakers it has the segments of the diarized one."""
    body: dict[str, Any] = {"text": answer.transcript.text, "usage": usage(answer.transcript)}
    if any(segment.speaker for segment in answer.transcript.segments):
        body["segments"] = [diarized_segment(segment) for segment in answer.transcript.segments]
    if answer.logprobs:
        body["logprobs"] = logprobs(answer.transcript.segments)
    return {**body, "warnings": found} if (found := warnings(answer)) else body


def verbose_json(answer: TranscriptionResult) -> dict[str, Any]:
    """OpenAI's long form, with the coverage report."""
    transcript = answer.transcript
    body: dict[str, Any] = {
        "task": answer.task,
        "language": name_of(transcript.language),
        "duration": transcript.duration,
        "text": transcript.text,
        "usage": usage(transcript),
        "coverage": dict(answer.coverage),
    }
    if answer.model:
        body["model"] = answer.model
    if "segment" in answer.granularities:
        body["segments"] = [segment_body(segment) for segment in transcript.segments]
    if "word" in answer.granularities:
        body["words"] = [word for segment in transcript.segments for word in words_body(segment)]
    return {**body, "warnings": found} if (found := warnings(answer)) else body


def diarized_json(answer: TranscriptionResult) -> dict[str, Any]:
    """OpenAI's form for a transcript with speakers; `text` has no names in it."""
    transcript = answer.transcript
    body: dict[str, Any] = {
        "task": answer.task,
        "duration": transcript.duration,
        "text": transcript.text,
        "segments": [diarized_segment(segment) for segment in transcript.segments],
        "usage": usage(transcript),
    }
    if answer.model:
        body["model"] = answer.model
    return {**body, "warnings": found} if (found := warnings(answer)) else body


def diarized_segment(segment: Segment) -> dict[str, Any]:
    """A segment in OpenAI's form for transcripts with speakers, which is that of an event."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment.id}",
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "speaker": segment.speaker or NOBODY,
    }


def warnings(answer: TranscriptionResult) -> list[str]:
    """Warnings for the client, one sentence each: what the recording lacks, and what was left out."""
    coverage = answer.coverage
    found = [*coverage.get("warnings", ())]
    dropped = [entry for entry in coverage.get("dropped", ()) if entry["reason"] != "no_text"]
    if dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(one["reason"] for one in dropped).items())
        found.append(f"Text that the model made up was left out: {reasons}.")
    if silent := sum(one["end"] - one["start"] for one in coverage.get("dropped", ()) if one["reason"] == "no_text"):
        found.append(f"No words were found in {silent:.1f} s that sound like speech.")
    if "word" in answer.granularities and any(segment.words is None for segment in answer.transcript.segments):
        found.append("This model cannot give the times of some or all words.")
    return found


def segment_body(segment: Segment) -> dict[str, Any]:
    """A segment in OpenAI's form, which has no words in it; what is ours is there only if it was asked for."""
    body = asdict(replace(segment, words=None))
    return {name: value for name, value in body.items() if value is not None} | {"tokens": list(segment.tokens)}


def words_body(segment: Segment) -> list[dict[str, Any]]:
    """The segment's words in OpenAI's form, with the speaker if it was asked for."""
    return [
        {"word": word.word.strip(), "start": word.start, "end": word.end}
        | ({} if word.speaker is None else {"speaker": word.speaker})
        for word in segment.words or ()
    ]


def logprobs(segments: tuple[Segment, ...]) -> list[dict[str, Any]]:
    """OpenAI's `logprobs` with words for tokens: the model's certainty of each, as a natural logarithm."""
    return [
        {"token": word.word, "logprob": math.log(max(word.probability, 1e-10)), "bytes": list(word.word.encode())}
        for segment in segments
        for word in segment.words or ()
    ]


def usage(transcript: Transcript) -> dict[str, Any]:
    """What OpenAI would bill: seconds, rounded up."""
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


TEXT_WRITERS: dict[str, tuple[str, Callable[[TranscriptionResult], str]]] = {
    "text": ("text/plain; charset=utf-8", text),
    "srt": ("application/x-subrip; charset=utf-8", srt),
    "vtt": ("text/vtt; charset=utf-8", vtt),
    "tsv": ("text/tab-separated-values; charset=utf-8", tsv),
}
JSON_WRITERS: dict[str, Callable[[TranscriptionResult], dict[str, Any]]] = {
    "json": json,
    "verbose_json": verbose_json,
    "diarized_json": diarized_json,
}


def clock(seconds: float, point: str) -> str:
    """`HH:MM:SS` and milliseconds after `point`; hours grow as they must."""
    whole, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{milliseconds:03d}"


def _milliseconds(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1000)


def _lines(answer: TranscriptionResult) -> list[tuple[Segment, str]]:
    """The segments that have text, each with it on one line: a blank line would end a cue."""
    lines = [(segment, SPACE.sub(" ", segment.text).strip()) for segment in answer.transcript.segments]
    return [(segment, line) for segment, line in lines if line]


def _named(speaker: str | None) -> str:
    return f"{speaker}: " if speaker else ""


def _voice(speaker: str | None) -> str:
    return f"<v {_escaped(speaker)}>" if speaker else ""


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
