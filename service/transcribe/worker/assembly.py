"""Puts the engine's results for one recording together, in order, whatever order they come in."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgspec

from transcribe.audio.chunking import AudioChunk
from transcribe.engine import ChunkResult
from transcribe.types import Segment, Word
from transcribe.worker.hallucinations import SAME_SEGMENTS, Dropped, overlap, remove_hallucinations, speech_without_text

LOWEST_LOGPROB = -1000.0
MAX_DROPPED = 1000  # entries of the coverage report that are kept; all are counted


@dataclass
class Coverage:
    """What was heard as speech, what of it has text, and what was left out."""

    speech: float = 0.0
    text: float = 0.0
    count: int = 0
    missing: float = 0.0  # seconds that the file promises and does not hold
    warnings: list[str] = field(default_factory=list)  # a sentence each
    dropped: list[Dropped] = field(default_factory=list)

    def add(self, chunk: AudioChunk, segments: list[Segment], dropped: list[Dropped]) -> None:
        """Counts a chunk, its text and what was taken out of it."""
        self.speech += chunk.speech_seconds
        self.text += sum(overlap(chunk.speech, segment.start, segment.end) for segment in segments)
        everything = [*dropped, *(gap for gap in speech_without_text(segments, chunk) if not _within(gap, dropped))]
        if chunk.channel is not None:
            everything = [replace(entry, channel=chunk.channel) for entry in everything]
        self.count += len(everything)
        self.dropped += everything[: MAX_DROPPED - len(self.dropped)]

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Coverage":
        """The other way round of `asdict`."""
        return cls(**{**state, "dropped": [Dropped(**entry) for entry in state["dropped"]]})

    def note(self, missing: float, warnings: list[str]) -> None:
        """What the recording's end showed."""
        self.missing, self.warnings = missing, list(warnings)

    def report(self) -> dict[str, Any]:
        """The report as clients get it: seconds, `warnings`, and `dropped` with start, end, reason and text, and the
        channel, from 0, where each is heard by itself."""
        entries = sorted(self.dropped, key=lambda entry: entry.start)
        rounded = [{**asdict(entry), "start": round(entry.start, 2), "end": round(entry.end, 2)} for entry in entries]
        for entry in rounded:
            if entry["channel"] is None:
                del entry["channel"]
        return {
            "speech_seconds": round(self.speech, 2),
            "text_seconds": round(min(self.text, self.speech), 2),
            "missing_seconds": round(self.missing, 2),
            "warnings": self.warnings,
            "dropped_count": self.count,
            "dropped": rounded,
        }


def _within(gap: Dropped, dropped: list[Dropped]) -> bool:
    return overlap([(entry.start, entry.end) for entry in dropped], gap.start, gap.end) > 0.5 * (gap.end - gap.start)


@dataclass
class Strand:
    """What came of one channel, or of the mix of all: where its text ends, its last texts and its language."""

    end: float = 0.0
    language: str | None = None
    texts: list[str] = field(default_factory=list)
    chances: dict[str, float] = field(default_factory=dict)  # of languages, that go on into the next chunk; see Pieces


class Assembly:
    """Results of one recording's chunks. Chunks are numbered from 0 in order of their beginnings.

    Where channels are heard each by itself, a segment waits until no chunk can bring an earlier one of another channel;
    so ids run on in order of time. `flush` gives those that still wait at the end.
    """

    def __init__(self) -> None:
        self.coverage = Coverage()
        self.progress = 0.0  # seconds of the recording that are done, from its start
        self.done = 0  # chunks put together
        self.cut = 0.0  # where the last of them ends
        self._waiting: dict[int, tuple[AudioChunk, ChunkResult]] = {}
        self._held: list[Segment] = []
        self._strands: dict[int | None, Strand] = {}
        self._spoken: Counter[str] = Counter()  # milliseconds of text by language
        self._next_id = 0
        self._prompts: tuple[str, ...] = ()

    @classmethod
    def resumed(cls, state: Mapping[str, Any], segments: Sequence[Segment]) -> "Assembly":
        """An assembly that goes on from `state`; `segments` are those that were kept so far."""
        found = cls()
        found.coverage = Coverage.from_state(state["coverage"])
        found.progress, found.done, found._next_id = state["progress"], state["chunks"], state["next_id"]
        found.cut = state.get("cut", found.progress)
        found._held = [msgspec.convert(segment, Segment) for segment in state.get("held", ())]
        found._spoken = Counter(state.get("spoken", {}))
        strands = state.get("strands", [{"channel": None, "end": state.get("end"), "language": state.get("language")}])
        for strand in strands:  # the default is what versions before channels stored
            channel = strand["channel"]
            texts = [segment.text for segment in (*segments, *found._held) if segment.channel == channel]
            chances = strand.get("chances", {})
            found._strands[channel] = Strand(strand["end"], strand["language"], texts[-SAME_SEGMENTS:], chances)
        return found

    def state(self) -> dict[str, Any]:
        """What `resumed` needs, as JSON values."""
        return {
            "chunks": self.done,
            "cut": self.cut,
            "progress": self.progress,
            "next_id": self._next_id,
            "held": [asdict(segment) for segment in self._held],
            "spoken": dict(self._spoken),
            "strands": [
                {"channel": channel, "end": strand.end, "language": strand.language, "chances": strand.chances}
                for channel, strand in self._strands.items()
            ],
            "coverage": asdict(self.coverage),
        }

    @property
    def language(self) -> str | None:
        """The language that is spoken most, if any was heard."""
        if self._spoken:
            return self._spoken.most_common(1)[0][0]
        return next((strand.language for strand in self._strands.values() if strand.language), None)

    @property
    def chances(self) -> dict[int | None, dict[str, float]]:
        """Of each channel, how likely the next chunk is in each language."""
        return {channel: strand.chances for channel, strand in self._strands.items() if strand.chances}

    def language_of(self, channel: int | None) -> str | None:
        """The language that the channel's first chunk is in, once that is known."""
        return self._strands[channel].language if channel in self._strands else None

    def add(self, number: int, chunk: AudioChunk, result: ChunkResult, *prompts: str) -> list[Segment]:
        """Takes a chunk's result; returns the segments that are next, with the recording's times and ids running on.
        `prompts` are what the model was given to read first: words of them are not text."""
        self._prompts = prompts
        self._waiting[number] = chunk, result
        strand = self._strands.setdefault(chunk.channel, Strand())
        strand.language = strand.language or result.language
        ready: list[Segment] = []
        while self.done in self._waiting:
            chunk, result = self._waiting.pop(self.done)
            self._settle(chunk, result)
            self.done, self.cut = self.done + 1, chunk.end
            self.progress = max(self.progress, chunk.end if chunk.channel is None else chunk.start)
            ready += self._released(math.inf if chunk.channel is None else round(chunk.start, 3))
        return ready

    def flush(self) -> list[Segment]:
        """The segments that still wait, at the end of the recording."""
        return self._released(math.inf)

    def _settle(self, chunk: AudioChunk, result: ChunkResult) -> None:
        strand = self._strands[chunk.channel]
        strand.chances = dict(result.heard)
        placed = [place(segment, chunk) for segment in result.segments]
        kept, dropped = remove_hallucinations(placed, chunk, strand.texts, *self._prompts)
        settled = []
        for segment in kept:
            start = max(segment.start, strand.end)
            settled.append(inside(replace(segment, start=start, end=max(segment.end, start))))
            strand.end = settled[-1].end
            strand.texts = [*strand.texts, segment.text][-SAME_SEGMENTS:]
            self._spoken[segment.language or result.language] += round(1000 * (strand.end - start)) + 1
        if chunk.channel is not None:
            settled = [of_channel(segment, chunk.channel) for segment in settled]
        self._held += settled
        self.coverage.add(chunk, settled, dropped)

    def _released(self, moment: float) -> list[Segment]:
        self._held.sort(key=lambda segment: segment.start)
        ready = [segment for segment in self._held if segment.start <= moment]
        self._held = self._held[len(ready) :]
        first, self._next_id = self._next_id, self._next_id + len(ready)
        return [replace(segment, id=number) for number, segment in enumerate(ready, start=first)]


def of_channel(segment: Segment, channel: int) -> Segment:
    """The segment as what is said on that channel, counted from 0, which is its speaker."""
    speaker = f"channel {channel + 1}"
    words = segment.words and tuple(replace(word, speaker=speaker) for word in segment.words)
    return replace(segment, channel=channel, speaker=speaker, words=words)


def place(segment: Segment, chunk: AudioChunk) -> Segment:
    """The segment with times of the recording instead of the chunk's; none reaches beyond the chunk.

    Figures that are not finite, which JSON cannot hold, become the lowest: max(low, nan) is low.
    """
    start = min(max(chunk.start + segment.start, chunk.start), chunk.end)
    words = segment.words
    if words is not None:
        words = tuple(
            replace(
                word,
                start=word.start + chunk.start,
                end=word.end + chunk.start,
                probability=max(0.0, word.probability),
            )
            for word in words
        )
    return replace(
        segment,
        start=start,
        end=min(max(chunk.start + segment.end, start), chunk.end),
        seek=segment.seek + round(chunk.start * 100),
        avg_logprob=max(LOWEST_LOGPROB, segment.avg_logprob),
        no_speech_prob=max(0.0, segment.no_speech_prob),
        words=words,
    )


def inside(segment: Segment) -> Segment:
    """The segment with times in milliseconds, its words' times monotonic and within its own."""
    start, end = round(segment.start, 3), round(segment.end, 3)
    words: list[Word] | None = None
    if segment.words is not None:
        words, at = [], start
        for word in segment.words:
            begin = min(max(round(word.start, 3), at), end)
            at = min(max(round(word.end, 3), begin), end)
            words.append(replace(word, start=begin, end=at))
    return replace(segment, start=start, end=end, words=None if words is None else tuple(words))
