"""Whether a decoded window can be trusted, by the figures and limits of OpenAI's Whisper."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

COMPRESSION_RATIO_LIMIT = 2.4  # above it, text repeats itself
AVERAGE_LOGPROB_LIMIT = -1.0  # below it, the model guesses
NO_SPEECH_LIMIT = 0.6

LOOP_RATIO = 3.0  # text like this is given up before its end: it can only be tried again
LOOP_TOKENS, LOOP_EVERY = 120, 40  # when that is looked at
ROUNDS, ROUND_TOKENS, LONGEST_ROUND = 4, 12, 16  # as often, over as many tokens, of at most so many each


def compression_ratio(text: str) -> float:
    """Length of the text in UTF-8 over its length deflated."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def is_repeating(tokens: Sequence[int]) -> bool:
    """Whether the text ends with the same few tokens over and over."""
    for length in range(1, LONGEST_ROUND + 1):
        reach = max(ROUNDS * length, ROUND_TOKENS)
        if reach > len(tokens):
            return False
        if tokens[-1] == tokens[-1 - length] and tokens[-reach:-length] == tokens[-reach + length :]:
            return True
    return False


def average_logprob(logprobs: Sequence[float]) -> float:
    """Mean over the tokens, the end token included (one more is counted when the limit cut it off)."""
    return sum(logprobs) / max(len(logprobs), 1)


@dataclass(frozen=True)
class Quality:
    """The figures of a decoded window."""

    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float

    @property
    def silent(self) -> bool:
        return self.no_speech_prob > NO_SPEECH_LIMIT and self.avg_logprob < AVERAGE_LOGPROB_LIMIT

    @property
    def trust(self) -> tuple[bool, float]:
        """Orders texts that are all doubtful: one that goes round in circles is worse than any that does not."""
        return self.compression_ratio <= COMPRESSION_RATIO_LIMIT, self.avg_logprob

    @property
    def doubtful(self) -> bool:
        """Worth another try at a higher temperature."""
        bad = self.compression_ratio > COMPRESSION_RATIO_LIMIT or self.avg_logprob < AVERAGE_LOGPROB_LIMIT
        return bad and not self.silent
