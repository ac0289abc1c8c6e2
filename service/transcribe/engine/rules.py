"""Which tokens may follow: suppression and timestamps, as tensor operations over all rows at once.

The rules are those of OpenAI's Whisper (decoding.py: SuppressTokens, SuppressBlank, ApplyTimestampRules).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .spec import Special


@dataclass
class RuleState:
    """What the rules must know of each row: tensors of [rows]."""

    fresh: Tensor  # bool: nothing said yet
    last: Tensor  # bool: the last token was a timestamp (true at the start)
    before_last: Tensor  # bool: and the one before it
    latest: Tensor  # int64: the largest timestamp so far in steps of 20 ms, or -1
    temperature: Tensor  # float32; 0 is greedy

    @classmethod
    def of(cls, rows: int, device: str) -> "RuleState":
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

    def reset(self, row: int, temperature: float) -> None:
        for tensor, value in zip(self.tensors, (True, True, True, -1, temperature), strict=True):
            tensor[row] = value

    def head(self, rows: int) -> "RuleState":
        """The first rows, as views."""
        return RuleState(*(tensor[:rows] for tensor in self.tensors))


class Rules:
    """Chooses the next token of every row. Holds constants only."""

    def __init__(self, special: Special, vocabulary: int, device: str) -> None:
        self._special = special
        first = special.first_timestamp
        self._bias = torch.zeros(first, device=device)
        # What must not come first (special.suppressed_first) are words, and a timestamp always comes first.
        self._bias[[token for token in (*special.suppressed, special.no_timestamps) if token < first]] = float("-inf")
        self._steps = torch.arange(vocabulary - first, device=device)
        limit = special.max_initial_timestamp
        self._initial = self._steps <= (vocabulary if limit is None else limit)

    def choose(self, logits: Tensor, state: RuleState, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Next tokens and their log-probabilities, [rows] each, from `logits` [rows, vocabulary]; updates `state`.

        Changes `logits`. A row of temperature 0 takes its most probable token, others draw one; without a generator all
        are taken for 0, and the device is asked nothing. Log-probabilities are those of temperature 1 under the rules.
        """
        text, times = self._allowed(logits, state)
        times_sum = times.logsumexp(-1)
        text_max, text_best = text.max(-1)
        # As much probability on all timestamps together as on the likeliest word: it is time for a timestamp.
        timed = (times_sum > text_max) | state.fresh
        total = torch.where(timed, times_sum, torch.logaddexp(text.logsumexp(-1), times_sum))
        times_max, times_best = times.max(-1)
        first = self._special.first_timestamp
        chosen = torch.where(timed | (times_max > text_max), times_best + first, text_best)
        if generator is not None and bool((state.temperature > 0).any()):
            chosen = self._draw(logits, chosen, (timed, state.temperature), generator)
        logprob = logits.gather(-1, chosen[:, None])[:, 0] - total
        self._advance(chosen, state)
        return chosen, logprob

    def _allowed(self, logits: Tensor, state: RuleState) -> tuple[Tensor, Tensor]:
        """The logits of words and of timestamps, -inf where the rules forbid them (in place)."""
        first = self._special.first_timestamp
        text, times = logits[:, :first], logits[:, first:]
        text += self._bias
        opened = (state.last & ~state.before_last)[:, None]
        text[:, : self._special.end].masked_fill_(opened, float("-inf"))
        earliest = state.latest + (~opened[:, 0]).long()
        forbidden = self._steps < earliest[:, None]
        forbidden |= (state.last & state.before_last & ~state.fresh)[:, None]
        forbidden |= state.fresh[:, None] & ~self._initial
        times.masked_fill_(forbidden, float("-inf"))
        return text, times

    def _draw(
        self, logits: Tensor, greedy: Tensor, row_facts: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> Tensor:
        timed, temperature = row_facts
        warm = (temperature > 0).nonzero()[:, 0]
        scaled = logits[warm] / temperature[warm, None]
        scaled[:, : self._special.first_timestamp].masked_fill_(timed[warm, None], float("-inf"))
        drawn = torch.multinomial(torch.softmax(scaled, -1), 1, generator=generator)[:, 0]
        return greedy.index_copy(0, warm, drawn)

    def _advance(self, chosen: Tensor, state: RuleState) -> None:
        stamped = chosen >= self._special.first_timestamp
        state.before_last.copy_(state.last)
        state.last.copy_(stamped)
        state.fresh.fill_(False)
        state.latest.copy_(torch.where(stamped, chosen - self._special.first_timestamp, state.latest))
