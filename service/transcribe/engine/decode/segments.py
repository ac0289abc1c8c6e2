"""From a finished row to segments, with words when they are asked for."""

from collections.abc import Sequence

import torch

from transcribe.engine.decode.alignment import Timing, attach, cost, timings, warp
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.cuts import Piece, cut
from transcribe.engine.decode.quality import (
    LOOP_EVERY,
    LOOP_RATIO,
    LOOP_TOKENS,
    Quality,
    average_logprob,
    compression_ratio,
    goes_round,
)
from transcribe.engine.decode.state import Row
from transcribe.engine.model.config import Shape, Special
from transcribe.engine.model.tokenizer import Text
from transcribe.types import SAMPLE_RATE, Segment


class Finisher:
    """Judges finished rows and writes their segments."""

    def __init__(self, shape: Shape, special: Special, text: Text, *, word_times: bool) -> None:
        self._shape = shape
        self._special = special
        self._text = text
        self._word_times = word_times

    def quality(self, row: Row) -> Quality:
        return Quality(
            avg_logprob=average_logprob(row.logprobs),
            compression_ratio=compression_ratio(self._text.decode(row.tokens).strip()),
            no_speech_prob=row.no_speech_prob,
        )

    def loops(self, row: Row) -> bool:
        """Whether an unfinished row only repeats itself, so that it is heard again or tried at another temperature.

        A short window may be given up at the first sign of it: no more is lost than the time of hearing it whole.
        """
        if not row.task.whole_window and goes_round(row.tokens):
            return True
        count = len(row.tokens)
        if count < LOOP_TOKENS or count % LOOP_EVERY:
            return False
        return compression_ratio(self._text.decode(row.tokens).strip()) > LOOP_RATIO

    def segments(self, row: Row, quality: Quality, batch: Batch) -> float | None:
        """Adds the row's segments to its task. Returns where it must be heard again from (seconds into the row)."""
        task = row.task
        result = cut(row.tokens, self._special.first_timestamp, task.seconds, complete=row.complete)
        offset = task.offset / SAMPLE_RATE
        written = [self._segment(piece, row, quality, len(task.segments) + i) for i, piece in enumerate(result.pieces)]
        if task.options.words and self._word_times and written:
            timed = self._timings(row, written, batch)
            counts = [sum(token < self._special.end for token in segment.tokens) for segment in written]
            written = _distribute(written, timed, counts, offset)
        task.segments += written
        return result.resume

    def _segment(self, piece: Piece, row: Row, quality: Quality, number: int) -> Segment:
        offset = row.task.offset / SAMPLE_RATE
        return Segment(
            id=number,
            seek=round(offset * 100),
            start=round(piece.start + offset, 3),
            end=round(piece.end + offset, 3),
            text=self._text.decode(piece.tokens),
            tokens=piece.tokens,
            temperature=row.temperature,
            avg_logprob=quality.avg_logprob,
            compression_ratio=quality.compression_ratio,
            no_speech_prob=quality.no_speech_prob,
        )

    def _timings(self, row: Row, segments: Sequence[Segment], batch: Batch) -> list[Timing]:
        special = self._special
        spoken = [token for segment in segments for token in segment.tokens if token < special.end]
        language = row.task.language or "en"
        opening = special.opening(language, row.task.options.task)
        room = self._shape.context - len(opening) - 2
        spoken = spoken[:room]
        tokens = [*opening, special.no_timestamps, *spoken, special.end]
        attention, logprobs = batch.attention(row, tokens, special.alignment_heads)
        positions = max(1, min(attention.shape[-1], -(-len(row.task.audio) // (SAMPLE_RATE // 50))))
        heard = attention[:, len(opening) : -1, :positions].float()
        heard = heard / heard.sum(-1, keepdim=True).clamp(min=1e-9)
        begins = warp(cost(heard, self._shape.median_width))
        chances = torch.exp(logprobs[len(opening) : -1]).double().cpu().numpy()
        return timings(self._text.words(spoken, language), begins, chances)


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
