"""A finished transcript as text, subtitles or OpenAI's JSON."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from . import docx, overlaps, subtitles
from .confidence import probability_right
from .languages import name_of
from .overlaps import Overlaps
from .subtitles import READABLE, Cue, SubtitleOptions, broken_rules, writing
from .types import Segment, Transcript

SPACE = re.compile(r"\s+")
NOBODY = "unknown"  # the speaker of a segment that has none, where a name is required


@dataclass(frozen=True)
class TranscriptionResult:
    """A transcript with what the response formats also need: task, granularities, the coverage report, the model that
    it is of ('' if nobody asks), and how subtitles are made."""

    transcript: Transcript
    task: str = "transcribe"
    granularities: tuple[str, ...] = ("segment",)
    logprobs: bool = False
    coverage: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    subtitles: SubtitleOptions = READABLE

    @cached_property
    def named_cues(self) -> list[Cue]:
        """Subtitles that can be read, with the speakers' names in the text."""
        return subtitles.cues(self.transcript.segments, self.transcript.language, self.subtitles, named=True)

    @cached_property
    def cues(self) -> list[Cue]:
        """Subtitles that can be read, without names."""
        return subtitles.cues(self.transcript.segments, self.transcript.language, self.subtitles)

    @cached_property
    def overlaps(self) -> Overlaps:
        """Where speakers overlap."""
        return overlaps.found(self.transcript.segments)


def text(answer: TranscriptionResult) -> str:
    """The words alone, on one line; with speakers, each turn on its own line after its speaker's name."""
    turns = groupby(_lines(answer), lambda pair: pair[0].speaker)
    spoken = [(speaker, " ".join(line for _, line in lines)) for speaker, lines in turns]
    if all(speaker is None for speaker, _ in spoken):
        return f"{answer.transcript.text}\n"
    return "".join(f"{_named(speaker)}{words}\n" for speaker, words in spoken)


def srt(answer: TranscriptionResult) -> str:
    """SubRip, with the names of speakers in the text."""
    if answer.subtitles.raw:
        return writing.srt((*times, [_named(one.speaker) + line]) for times, one, line in _raw(answer))
    return writing.srt((cue.start, cue.end, cue.texts) for cue in answer.named_cues)


def vtt(answer: TranscriptionResult) -> str:
    """WebVTT, its text escaped, with a voice span for a speaker, and the times of words if they were asked for."""
    entries: Iterable[writing.Entry]
    if answer.subtitles.raw:
        entries = ((*times, [writing.voice(one.speaker) + writing.escaped(line)]) for times, one, line in _raw(answer))
    else:
        lines = writing.highlighted if answer.subtitles.highlight_words else writing.plain
        entries = ((cue.start, cue.end, lines(cue)) for cue in answer.cues)
    return writing.vtt(entries, [*warnings(answer), *hurried(answer, "vtt")])


def hurried(answer: TranscriptionResult, response_format: str) -> list[str]:
    """A warning if subtitles must be read faster than they should, because the speech is so fast."""
    if answer.subtitles.raw or response_format not in ("srt", "vtt"):
        return []
    cues = answer.named_cues if response_format == "srt" else answer.cues
    if not (bad := {one.number for one in broken_rules(cues, answer.subtitles)}):
        return []
    limit = f"{answer.subtitles.max_cps:g} characters a second"
    return [f"The speech is too fast for {len(bad)} of {len(cues)} subtitles to keep to {limit}."]


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
    if answer.task == "transcribe":
        body["languages"] = languages(answer.transcript)
    if any(segment.speaker for segment in answer.transcript.segments):
        body["segments"] = _diarized(answer)
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
        body["segments"] = [
            segment_body(segment) | _marked(place in answer.overlaps.segments)
            for place, segment in enumerate(transcript.segments)
        ]
    if "word" in answer.granularities:
        body["words"] = [
            word | _marked((place, number) in answer.overlaps.words)
            for place, segment in enumerate(transcript.segments)
            for number, word in enumerate(words_body(segment))
        ]
    return {**body, "warnings": found} if (found := warnings(answer)) else body


def diarized_json(answer: TranscriptionResult) -> dict[str, Any]:
    """OpenAI's form for a transcript with speakers; `text` has no names in it."""
    transcript = answer.transcript
    body: dict[str, Any] = {
        "task": answer.task,
        "duration": transcript.duration,
        "text": transcript.text,
        "segments": _diarized(answer),
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


def _diarized(answer: TranscriptionResult) -> list[dict[str, Any]]:
    """All segments in OpenAI's form for transcripts with speakers, and where they overlap."""
    return [
        diarized_segment(segment) | _marked(place in answer.overlaps.segments)
        for place, segment in enumerate(answer.transcript.segments)
    ]


def _marked(overlap: bool) -> dict[str, Any]:
    return {"overlap": True} if overlap else {}


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
    """The segment's words in OpenAI's form, with the probability that they are right, which is 1 where a person has
    corrected the segment, and the speaker if it was asked for."""
    return [
        {
            "word": word.word.strip(),
            "start": word.start,
            "end": word.end,
            "probability": 1.0
            if segment.corrected
            else round(probability_right(word.probability, segment.avg_logprob), 3),
        }
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


def languages(transcript: Transcript) -> list[dict[str, str]]:
    """OpenAI's list of the languages that were heard, in the order of their appearance; empty without text."""
    codes = dict.fromkeys(segment.language or transcript.language for segment in transcript.segments)
    return [{"code": code} for code in codes]


def usage(transcript: Transcript) -> dict[str, Any]:
    """What OpenAI would bill: seconds, rounded up."""
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


TEXT_WRITERS: dict[str, tuple[str, Callable[[TranscriptionResult], str]]] = {
    "text": ("text/plain; charset=utf-8", text),
    "srt": ("application/x-subrip; charset=utf-8", srt),
    "vtt": ("text/vtt; charset=utf-8", vtt),
    "tsv": ("text/tab-separated-values; charset=utf-8", tsv),
}
FILE_WRITERS: dict[str, tuple[str, Callable[[TranscriptionResult], bytes]]] = {
    "docx": (docx.KIND, lambda answer: docx.document(answer.transcript, warnings(answer))),
}
JSON_WRITERS: dict[str, Callable[[TranscriptionResult], dict[str, Any]]] = {
    "json": json,
    "verbose_json": verbose_json,
    "diarized_json": diarized_json,
}


def _milliseconds(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1000)


def _lines(answer: TranscriptionResult) -> list[tuple[Segment, str]]:
    """The segments that have text, each with it on one line: a blank line would end a cue."""
    lines = [(segment, SPACE.sub(" ", segment.text).strip()) for segment in answer.transcript.segments]
    return [(segment, line) for segment, line in lines if line]


def _named(speaker: str | None) -> str:
    return f"{speaker}: " if speaker else ""


def _raw(answer: TranscriptionResult) -> Iterator[tuple[tuple[int, int], Segment, str]]:
    """The segments as subtitles: start and end in ms, and the line."""
    for one, line in _lines(answer):
        yield (_milliseconds(one.start), _milliseconds(one.end)), one, line
