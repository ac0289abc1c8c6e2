"""From a finished row to segments, with words when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transcribe.engine.cpu.library import Library
from transcribe.engine.decode.alignment import CostFunction, Timing, attach, begins, timings
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.quality import (
    LOOP_EVERY,
    LOOP_RATIO,
    LOOP_TOKENS,
    Quality,
    average_logprob,
    compression_ratio,
    is_repeating,
)
from transcribe.engine.decode.state import DecodeSequence
from transcribe.engine.model.config import ModelDimensions, SpecialTokens
from transcribe.engine.model.tokenizer import WhisperTokenizer
from transcribe.types import SAMPLE_RATE, Segment

TIME_STEP = 0.02  # seconds of one timestamp
MIN_REMAINDER = 1.0  # seconds: less is not decoded again


@dataclass(frozen=True)
class SegmentTokens:
    """A segment within a window: seconds from the window's start, its tokens with its timestamps, and the number of the
    first of them in the window."""

    start: float
    end: float
    tokens: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class WindowSplit:
    """The segments of a window, and where the next window must begin (seconds), None at the end of the audio."""

    pieces: tuple[SegmentTokens, ...]
    resume: float | None


def split_window(tokens: Sequence[int], first_timestamp: int, seconds: float, *, complete: bool) -> WindowSplit:
    """The segments of `tokens` (without the end token), decoded from a window with `seconds` of audio.

    `complete` says that the model ended the text itself. A last segment that it only opened, or that the limit cut
    off, is left to the next window, which begins where the segment before it ended.
    """

    def time(token: int) -> float:
        return min((token - first_timestamp) * TIME_STEP, seconds)

    stamped = [token >= first_timestamp for token in tokens]
    borders = [i for i in range(1, len(tokens)) if stamped[i] and stamped[i - 1]]
    pieces = []
    for begin, end in zip([0, *borders], [*borders, len(tokens)], strict=True):
        times = [time(token) for token in tokens[begin:end] if token >= first_timestamp]
        if len(times) == end - begin:
            continue  # no text
        start = times[0] if stamped[begin] else 0.0
        closed = stamped[end - 1] and end - begin > 1
        stop = max(start, times[-1] if closed else seconds)
        pieces.append(SegmentTokens(start, stop, tuple(tokens[begin:end]), begin))
    open_end = bool(borders) and (not complete or borders[-1] == len(tokens) - 1)
    resume = time(tokens[borders[-1] - 1]) if open_end else 0.0
    if not open_end or resume <= 0.0 or seconds - resume < MIN_REMAINDER:
        return WindowSplit(tuple(pieces), None)
    return WindowSplit(tuple(piece for piece in pieces if piece.end <= resume), resume)


class SegmentBuilder:
    """Judges finished rows and writes their segments."""

    def __init__(
        self,
        dims: ModelDimensions,
        special: SpecialTokens,
        tokenizer: WhisperTokenizer,
        library: Library | None = None,
        costs: CostFunction | None = None,
    ) -> None:
        """`library`: a processor's kernels, which find the words' times faster than torch does. `costs`: alignment.cost
        by those of a GPU."""
        self._median_width = dims.median_width
        self._special = special
        self._tokenizer = tokenizer
        self._word_times = special.word_times(dims)
        self._library, self._costs = library, costs

    def quality(self, row: DecodeSequence) -> Quality:
        return Quality(
            avg_logprob=average_logprob(row.logprobs),
            compression_ratio=compression_ratio(self._tokenizer.decode(row.tokens).strip()),
            no_speech_prob=row.no_speech_prob,
        )

    def is_looping(self, row: DecodeSequence) -> bool:
        """Whether an unfinished row only repeats itself: it is tried in a whole window or at another temperature.

        A short window is given up at the first sign: no more is lost than the time of decoding it whole.
        """
        if not row.request.whole_window and is_repeating(row.tokens):
            return True
        count = len(row.tokens)
        if count < LOOP_TOKENS or count % LOOP_EVERY:
            return False
        return compression_ratio(self._tokenizer.decode(row.tokens).strip()) > LOOP_RATIO

    def segments(self, row: DecodeSequence, quality: Quality, batch: Batch) -> float | None:
        """Adds the row's segments to its request. Returns where the next window begins, seconds into this one."""
        request = row.request
        result = split_window(row.tokens, self._special.first_timestamp, request.seconds, complete=row.complete)
        offset = request.offset / SAMPLE_RATE
        before = len(request.segments)
        written = [self._segment(piece, row, quality, before + i) for i, piece in enumerate(result.pieces)]
        if request.options.words and self._word_times and written:
            timed = self._timings(row, result.pieces, batch)
            counts = [sum(token < self._special.end for token in segment.tokens) for segment in written]
            written = _distribute(written, timed, counts, offset)
        request.segments += written
        return result.resume

    def _segment(self, piece: SegmentTokens, row: DecodeSequence, quality: Quality, number: int) -> Segment:
        offset = row.request.offset / SAMPLE_RATE
        return Segment(
            id=number,
            seek=round(offset * 100),
            start=round(piece.start + offset, 3),
            end=round(piece.end + offset, 3),
            text=self._tokenizer.decode(piece.tokens),
            tokens=piece.tokens,
            temperature=row.temperature,
            avg_logprob=quality.avg_logprob,
            compression_ratio=quality.compression_ratio,
            no_speech_prob=quality.no_speech_prob,
        )

    def _timings(self, row: DecodeSequence, pieces: Sequence[SegmentTokens], batch: Batch) -> list[Timing]:
        """The words of `pieces` with their times."""
        spoken = [
            number
            for piece in pieces
            for number, token in enumerate(piece.tokens, piece.first)
            if token < self._special.end
        ]
        if not spoken:
            return []
        # The last word ends where the token behind it was chosen; there is none where the text was cut off.
        chosen = [number for number in (*spoken, spoken[-1] + 1) if number < len(row.logprobs)]
        places = [len(row.prefix) + number - 1 for number in chosen]
        attention = batch.attention(row)
        positions = max(1, min(attention.shape[-1], -(-len(row.request.audio) // (SAMPLE_RATE // 50))))
        begun = begins(attention[:, places, :positions], self._median_width, self._library, self._costs)
        probabilities = np.exp([row.logprobs[number] for number in spoken])
        words = self._tokenizer.words([row.tokens[number] for number in spoken], row.request.language or "en")
        return timings(words, begun, probabilities)


def _distribute(
    segments: Sequence[Segment], words: Sequence[Timing], counts: Sequence[int], offset: float
) -> list[Segment]:
    """Gives each segment the words that begin among its text tokens, of which it has `counts`."""
    result = []
    queue = list(words)
    due = 0  # text tokens up to the segment's end that no word has taken yet
    for number, (segment, count) in enumerate(zip(segments, counts, strict=True)):
        due += count
        own: list[Timing] = []
        while queue and (due > 0 or number == len(segments) - 1):
            own.append(queue.pop(0))
            due -= len(own[-1].tokens)
        result.append(attach(segment, own, offset))
    return result
