"""Which tokens may follow: suppression and timestamps, as tensor operations over all rows at once.

The rules are those of OpenAI's Whisper (decoding.py: SuppressTokens, SuppressBlank, ApplyTimestampRules).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.library import Library
from transcribe.engine.model.config import SpecialTokens

NEVER = -1e30  # added to what may not follow: no logit makes up for it, and the kernels need it finite


@dataclass
class SamplerState:
    """What the rules must know of each row: tensors of [rows]."""

    fresh: Tensor  # bool: nothing said yet
    last: Tensor  # bool: the last token was a timestamp (true at the start)
    before_last: Tensor  # bool: and the one before it
    latest: Tensor  # int64: the largest timestamp so far in steps of 20 ms, or -1
    temperature: Tensor  # float32; 0 is greedy

    @classmethod
    def of(cls, rows: int, device: str) -> "SamplerState":
        flags = torch.ones(3, rows, dtype=torch.bool, device=device)
        return cls(
            fresh=flags[0],
            last=flags[1],
            before_last=flags[2],
            latest=torch.full((rows,), -1, dtype=torch.int64, device=device),
            temperature=torch.zeros(rows, device=device),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.fresh, self.last, self.before_last, self.latest, self.temperature

    def reset(self, temperatures: Tensor) -> None:
        """All rows are at their beginning, at `temperatures` [rows]."""
        for flags in (self.fresh, self.last, self.before_last):
            flags.fill_(True)
        self.latest.fill_(-1)
        self.temperature.copy_(temperatures)

    def of_rows(self, rows: slice) -> "SamplerState":
        """Some of the rows, as views."""
        return SamplerState(*(tensor[rows] for tensor in self.tensors))


@dataclass(frozen=True)
class Best:
    """Of the words that may follow, and of the timestamps, [rows, 2]: the most probable, and how likely all are."""

    logits: Tensor
    sums: Tensor  # logarithm of the sum of all as powers of e
    tokens: Tensor


class Sampler:
    """Chooses the next token of every row. Holds constants only."""

    def __init__(self, special: SpecialTokens, vocabulary: int, device: str, library: Library | None = None) -> None:
        """`library`: a processor's kernels, which look at every logit twice where torch does six times."""
        self._special = special
        self._library = library
        first = special.first_timestamp
        self.bias = torch.zeros(vocabulary, device=device)
        # What must not come first (special.suppressed_first) are words, and a timestamp always comes first.
        self.bias[[token for token in (*special.suppressed, special.no_timestamps) if token < first]] = NEVER
        self._stamps = torch.arange(first, vocabulary, device=device)
        self._end = vocabulary
        limit = special.max_initial_timestamp
        self._initial = vocabulary if limit is None else min(first + limit + 1, vocabulary)
        # For a GPU's kernel: the vocabulary, the first timestamp, the token that ends a text, and the end of the
        # timestamps that may come first.
        self.limits = vocabulary, first, special.end, self._initial

    def choose(self, logits: Tensor, state: SamplerState, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Next tokens and their log-probabilities, [rows] each, from `logits` [rows, vocabulary]; updates `state`.

        Changes `logits`. A row of temperature 0 takes its most probable token, others draw one; without a generator all
        are taken for 0, and the device is asked nothing. Log-probabilities are those of temperature 1 under the rules.
        """
        warm = generator is not None and bool((state.temperature > 0).any())
        ranges = self._ranges(state)
        if self._library is not None and not warm:
            best = Best(*ops.best_tokens(self._library, logits, self.bias, ranges))
        else:
            best = self._best(logits, ranges)
        # As much probability on all timestamps together as on the likeliest word: it is time for a timestamp.
        timed = (best.sums[:, 1] > best.logits[:, 0]) | state.fresh
        stamp = timed | (best.logits[:, 1] > best.logits[:, 0])
        total = torch.where(timed, best.sums[:, 1], torch.logaddexp(best.sums[:, 0], best.sums[:, 1]))
        chosen = torch.where(stamp, best.tokens[:, 1], best.tokens[:, 0])
        logprob = torch.where(stamp, best.logits[:, 1], best.logits[:, 0])
        if warm:
            assert generator is not None
            chosen = self._draw(logits, chosen, (timed, state.temperature), generator)
            logprob = logits.gather(-1, chosen[:, None])[:, 0]
        self._advance(chosen, state)
        return chosen, logprob - total

    def _ranges(self, state: SamplerState) -> Tensor:
        """Where the words that may follow begin and end, and the timestamps: int64 [rows, 2, 2]."""
        first = self._special.first_timestamp
        opened = state.last & ~state.before_last
        closed = state.last & state.before_last & ~state.fresh
        ranges = torch.empty(len(opened), 2, 2, dtype=torch.int64, device=opened.device)
        ranges[:, 0, 0] = opened * self._special.end
        ranges[:, 0, 1] = first
        ranges[:, 1, 0] = first + state.latest + ~opened
        ranges[:, 1, 1] = torch.where(closed, 0, torch.where(state.fresh, self._initial, self._end))
        return ranges

    def _best(self, logits: Tensor, ranges: Tensor) -> Best:
        """Makes what may not follow impossible in `logits`."""
        first, forbidden = self._special.first_timestamp, float("-inf")
        text, times = logits[:, :first], logits[:, first:]
        text += self.bias[:first]
        text[:, : self._special.end].masked_fill_(ranges[:, 0, :1] > 0, forbidden)
        times.masked_fill_((self._stamps < ranges[:, 1, :1]) | (self._stamps >= ranges[:, 1, 1:]), forbidden)
        (text_best, text_token), (times_best, times_token) = text.max(-1), times.max(-1)
        return Best(
            torch.stack([text_best, times_best], -1),
            torch.stack([text.logsumexp(-1), times.logsumexp(-1)], -1),
            torch.stack([text_token, times_token + first], -1),
        )

    def _draw(
        self, logits: Tensor, greedy: Tensor, row_facts: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> Tensor:
        timed, temperature = row_facts
        warm = (temperature > 0).nonzero()[:, 0]
        scaled = logits[warm] / temperature[warm, None]
        scaled[:, : self._special.first_timestamp].masked_fill_(timed[warm, None], float("-inf"))
        drawn = torch.multinomial(torch.softmax(scaled, -1), 1, generator=generator)[:, 0]
        return greedy.index_copy(0, warm, drawn)

    def _advance(self, chosen: Tensor, state: SamplerState) -> None:
        stamped = chosen >= self._special.first_timestamp
        state.before_last.copy_(state.last)
        state.last.copy_(stamped)
        state.fresh.fill_(False)
        state.latest.copy_(torch.where(stamped, chosen - self._special.first_timestamp, state.latest))
