"""Puts the engine's results for one recording together, in order, whatever order they come in."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

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
        """The report as clients get it: seconds, `warnings`, and `dropped` with start, end, reason and text."""
        entries = sorted(self.dropped, key=lambda entry: entry.start)
        rounded = [{**asdict(entry), "start": round(entry.start, 2), "end": round(entry.end, 2)} for entry in entries]
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


class Assembly:
    """Results of one recording's chunks. Chunks are numbered from 0 in the recording's order."""

    def __init__(self) -> None:
        self.coverage = Coverage()
        self.language: str | None = None
        self.progress = 0.0  # seconds of the recording that are done, from its start
        self.done = 0  # chunks put together
        self._waiting: dict[int, tuple[AudioChunk, ChunkResult]] = {}
        self._next_id = 0
        self._end = 0.0  # of the last segment
        self._texts: list[str] = []
        self._prompt = ""

    @classmethod
    def resumed(cls, state: Mapping[str, Any], texts: Sequence[str]) -> "Assembly":
        """An assembly that goes on from `state`; `texts` are those of the segments that were kept so far."""
        found = cls()
        found.coverage = Coverage.from_state(state["coverage"])
        found.language, found.progress, found.done = state["language"], state["progress"], state["chunks"]
        found._next_id, found._end = state["next_id"], state["end"]
        found._texts = list(texts)[-SAME_SEGMENTS:]
        return found

    def state(self) -> dict[str, Any]:
        """What `resumed` needs, as JSON values."""
        return {
            "chunks": self.done,
            "progress": self.progress,
            "language": self.language,
            "next_id": self._next_id,
            "end": self._end,
            "coverage": asdict(self.coverage),
        }

    def add(self, number: int, chunk: AudioChunk, result: ChunkResult, prompt: str = "") -> list[Segment]:
        """Takes a chunk's result; returns the segments that are next, with the recording's times and ids running on.
        `prompt` is what the model was given to read first: words of it are not text."""
        self._prompt = prompt
        self._waiting[number] = chunk, result
        ready: list[Segment] = []
        while self.done in self._waiting:
            chunk, result = self._waiting.pop(self.done)
            ready += self._settle(chunk, result)
            self.done += 1
        return ready

    def _settle(self, chunk: AudioChunk, result: ChunkResult) -> list[Segment]:
        self.language = self.language or result.language
        placed = [place(segment, chunk) for segment in result.segments]
        kept, dropped = remove_hallucinations(placed, chunk, self._texts, self._prompt)
        settled = []
        for segment in kept:
            start = max(segment.start, self._end)
            settled.append(inside(replace(segment, id=self._next_id, start=start, end=max(segment.end, start))))
            self._next_id += 1
            self._end = settled[-1].end
            self._texts = [*self._texts, segment.text][-SAME_SEGMENTS:]
        self.coverage.add(chunk, settled, dropped)
        self.progress = chunk.end
        return settled


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
