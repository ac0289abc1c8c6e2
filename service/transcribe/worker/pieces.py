"""Several languages in one recording: each chunk is listened to, parted where the language changes, and decoded so.

A chunk is divided at its longest pauses into spans of some seconds. The engine says how likely each language is in
each. From these chances the likeliest sequence of languages follows (Viterbi, 1967), in which a change must gain
SWITCH, so that a single uncertain span changes nothing. The last chunk's chances go on into the next.

Where there is one language, a chunk is one piece; only if its text is too short for its speech, its spans are decoded
again, each by itself (sparse.py).
"""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from transcribe.audio.chunking import AudioChunk
from transcribe.engine import Chunk, ChunkResult
from transcribe.types import SAMPLE_RATE, DecodeOptions, Segment
from transcribe.worker import sparse

SURE_SECONDS = 5.0  # of speech; with less, the engine's word weighs less
SWITCH = 1.5  # natural logarithm of how much likelier a recording is to stay in its language, from span to span
# Whisper heard 438,000 hours of English and 242,000 of 96 other languages (Radford et al. 2022, 2.1): English is likely
# to it beforehand. A client who names languages expects each alike, so that much, ln(438,000 / (242,000 / 96)), is
# taken back.
ENGLISH_AHEAD = 5.2


@dataclass(frozen=True)
class Division:
    """How a chunk is divided, in seconds: stretches longer than `longest`, at pauses of `pause` or more that leave at
    least `shortest` on either side."""

    longest: float
    shortest: float
    pause: float = 0.0


BY_LANGUAGE = Division(longest=6.0, shortest=3.0)  # a language is not surely heard in less
BY_SENTENCE = Division(longest=4.0, shortest=1.5, pause=0.3)  # but not within one

Chances = Mapping[str, float]  # natural logarithms by language


@dataclass(frozen=True)
class Span:
    """From `start` to `end`, in seconds of the chunk, of which `speech` are speech. Spans cover the whole chunk."""

    start: float
    end: float
    speech: float


@dataclass(frozen=True)
class Part:
    """Spans of one language that follow each other; seconds of the chunk."""

    start: float
    end: float
    language: str | None  # None where the recording has one, which its segments need not name


@dataclass
class _Work:
    """A chunk that is being worked on."""

    number: int
    chunk: AudioChunk
    spans: list[Span]
    heard: dict[int, Chances] = field(default_factory=dict)
    after: Chances = field(default_factory=dict)  # what goes on into the next chunk
    parts: list[Part] = field(default_factory=list)
    results: dict[int, ChunkResult] = field(default_factory=dict)
    first: ChunkResult | None = None  # of the chunk as one piece, where that is doubted


class Pieces:
    """What the engine gets of a recording's chunks, and a result for each chunk from what it gives back.

    Unless the options say multilingual, a chunk is one piece at first. Keys of pieces begin with the chunk's number.
    `heard` has for each channel the chances that an earlier attempt left.
    """

    def __init__(self, options: DecodeOptions, heard: Mapping[int | None, Chances]) -> None:
        self._options = replace(options, words=options.words or options.speakers is not None)  # turns are cut at words
        self._chances = dict(heard)
        self._works: dict[int, _Work] = {}
        self._whole: dict[int, AudioChunk] = {}
        self._undecided: dict[int | None, deque[_Work]] = {}

    def begin(self, number: int, chunk: AudioChunk, language: str | None) -> list[Chunk]:
        """The first pieces of the channel's next chunk; `language` is that of all of it, where one is known."""
        if not self._options.multilingual:
            self._whole[number] = chunk
            return [Chunk((number,), chunk.audio, replace(self._options, language=language))]
        work = self._works[number] = _Work(number, chunk, spans_of(chunk, BY_LANGUAGE))
        self._undecided.setdefault(chunk.channel, deque()).append(work)
        sounds = ((index, _sound(chunk, span.start, span.end)) for index, span in enumerate(work.spans))
        return [Chunk((number, "span", index), sound, self._options, listen=True) for index, sound in sounds]

    def take(self, result: ChunkResult) -> tuple[list[Chunk], ChunkResult | None]:
        """Takes a piece's result. Returns the pieces that follow from it and, with its number as key, the result of a
        chunk that is done."""
        assert isinstance(result.key, tuple)
        number, *piece = result.key
        if not piece:
            return self._again(replace(result, key=number))
        work, (kind, index) = self._works[number], piece
        if kind == "span":
            work.heard[index] = result.heard
            return self._decide(work.chunk.channel), None
        work.results[index] = result
        if len(work.results) < len(work.parts):
            return [], None
        del self._works[number]
        joined = _joined(work)
        if work.first and not sparse.is_fuller(joined, than=work.first):
            return [], work.first
        return [], joined

    def _again(self, result: ChunkResult) -> tuple[list[Chunk], ChunkResult | None]:
        """What `take` returns for the result of a chunk that was one piece."""
        assert isinstance(result.key, int)
        number, chunk = result.key, self._whole.pop(result.key)
        if not sparse.is_sparse(result, chunk) or len(spans := spans_of(chunk, BY_SENTENCE)) == 1:
            return [], result
        parts = [Part(span.start, span.end, None) for span in spans]
        self._works[number] = _Work(number, chunk, spans, after=result.heard, parts=parts, first=result)
        options = replace(self._options, language=result.language)
        sounds = (_sound(chunk, part.start, part.end) for part in parts)
        return [Chunk((number, "part", index), sound, options) for index, sound in enumerate(sounds)], None

    def _decide(self, channel: int | None) -> list[Chunk]:
        """The parts of the chunks that are next in the channel and have been listened to."""
        queue, pieces = self._undecided[channel], list[Chunk]()
        while queue and len(queue[0].heard) == len(queue[0].spans):
            work = queue.popleft()
            named = bool(self._options.candidates)
            weighed = [_weighed(work.heard[index], span, named=named) for index, span in enumerate(work.spans)]
            languages, work.after = likeliest(weighed, self._chances.get(channel, {}))
            self._chances[channel] = work.after
            work.parts = _parts(work.spans, languages)
            for index, part in enumerate(work.parts):
                sound = _sound(work.chunk, part.start, part.end)
                pieces.append(
                    Chunk((work.number, "part", index), sound, replace(self._options, language=part.language))
                )
        return pieces


def spans_of(chunk: AudioChunk, division: Division) -> list[Span]:
    """The chunk divided at its longest pauses."""
    speech = [(start - chunk.start, end - chunk.start) for start, end in chunk.speech]
    groups = _divided(speech, division)
    middles = [(left[-1][1] + right[0][0]) / 2 for left, right in itertools.pairwise(groups)]
    borders = [0.0, *middles, chunk.end - chunk.start]
    lengths = [sum(end - start for start, end in group) for group in groups]
    return [Span(start, end, length) for (start, end), length in zip(itertools.pairwise(borders), lengths, strict=True)]


def _divided(speech: list[tuple[float, float]], division: Division) -> list[list[tuple[float, float]]]:
    if not speech or speech[-1][1] - speech[0][0] <= division.longest:
        return [speech]
    first, last = speech[0][0] + division.shortest, speech[-1][1] - division.shortest
    pauses = [
        (right[0] - left[1], number)
        for number, (left, right) in enumerate(itertools.pairwise(speech), start=1)
        if left[1] >= first and right[0] <= last and right[0] - left[1] >= division.pause
    ]
    if not pauses:
        return [speech]
    _, at = max(pauses)
    return _divided(speech[:at], division) + _divided(speech[at:], division)


def likeliest(heard: Sequence[Chances], before: Chances) -> tuple[list[str], dict[str, float]]:
    """The likeliest language of each span, given the chances of all and what the spans before left; and what they
    leave, at most 0."""
    scores = {language: before.get(language, -SWITCH if before else 0.0) for language in heard[0]}
    origins: list[dict[str, str]] = []
    for chances in heard:
        best = max(scores, key=scores.__getitem__)
        origin = {one: one if scores[one] >= scores[best] - SWITCH else best for one in scores}
        origins.append(origin)
        scores = {one: chances[one] + max(scores[one], scores[best] - SWITCH) for one in scores}
    language = max(scores, key=scores.__getitem__)
    top = scores[language]
    found = [language]
    for origin in reversed(origins[1:]):
        found.append(origin[found[-1]])
    return found[::-1], {one: max(score - top, -SWITCH) for one, score in scores.items()}


def _weighed(chances: Chances, span: Span, *, named: bool) -> Chances:
    weight = min(1.0, span.speech / SURE_SECONDS)
    return {one: weight * (chance - ENGLISH_AHEAD * (named and one == "en")) for one, chance in chances.items()}


def _parts(spans: Sequence[Span], languages: Sequence[str]) -> list[Part]:
    runs = itertools.groupby(zip(spans, languages, strict=True), key=lambda pair: pair[1])
    grouped = [(language, [span for span, _ in pairs]) for language, pairs in runs]
    return [Part(run[0].start, run[-1].end, language) for language, run in grouped]


def _sound(chunk: AudioChunk, start: float, end: float) -> NDArray[np.float32]:
    return chunk.audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


def _joined(work: _Work) -> ChunkResult:
    """The chunk's result: the parts' segments, each in its language, with the chunk's times."""
    segments: list[Segment] = []
    for index, part in enumerate(work.parts):
        segments += (_later(segment, part) for segment in work.results[index].segments)
    longest = max(range(len(work.parts)), key=lambda index: work.parts[index].end - work.parts[index].start)
    language = work.results[longest].language
    numbered = tuple(replace(segment, id=number) for number, segment in enumerate(segments))
    return ChunkResult(work.number, language, numbered, heard=work.after)


def _later(segment: Segment, part: Part) -> Segment:
    shift = part.start
    words = segment.words and tuple(replace(w, start=w.start + shift, end=w.end + shift) for w in segment.words)
    return replace(
        segment,
        start=segment.start + shift,
        end=segment.end + shift,
        seek=segment.seek + round(shift * 100),
        words=words,
        language=part.language,
    )
