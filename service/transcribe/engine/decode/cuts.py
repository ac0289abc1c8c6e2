"""Cuts the tokens of a window into segments at its timestamps, as OpenAI's Whisper does (transcribe.py)."""

from collections.abc import Sequence
from dataclasses import dataclass

TIME_STEP = 0.02  # seconds of one timestamp
MIN_REMAINDER = 1.0  # seconds: less is not heard again


@dataclass(frozen=True)
class Piece:
    """A segment within a window: seconds from the window's start, and its tokens with its timestamps."""

    start: float
    end: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """The segments of a window, and where it has to be heard again from (seconds), if it has."""

    pieces: tuple[Piece, ...]
    resume: float | None


def cut(tokens: Sequence[int], first_timestamp: int, seconds: float, *, complete: bool) -> Cut:
    """The segments of `tokens` (without the end token), decoded from a window with `seconds` of audio.

    `complete` tells that the model ended the text itself. A last segment that it only opened, or that the limit cut
    off, is left to another hearing that begins where the one before it ended.
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
        pieces.append(Piece(start, max(start, times[-1] if closed else seconds), tuple(tokens[begin:end])))
    open_end = bool(borders) and (not complete or borders[-1] == len(tokens) - 1)
    resume = time(tokens[borders[-1] - 1]) if open_end else 0.0
    if not open_end or resume <= 0.0 or seconds - resume < MIN_REMAINDER:
        return Cut(tuple(pieces), None)
    return Cut(tuple(piece for piece in pieces if piece.end <= resume), resume)
