"""The batched decode loop: finished rows leave, new ones join, each with its own prompt, language and temperature."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from transcribe.engine.decode.sampling import Sampler, SamplerState
from transcribe.engine.decode.state import Cursor, DecodeSequence
from transcribe.engine.model.config import SpecialTokens
from transcribe.engine.model.cross_attention_cache import CrossAttentionCache, PaddedCache
from transcribe.engine.model.network import Cache, Decoder


class GreedyStep(Protocol):
    """A step where no row draws its token, done in another way (cuda/graphs.py).

    Takes the number of rows and the tokens of the longest; returns whether it did the step. It counts its failures, and
    says why it failed last.
    """

    failed_captures: int
    failure: str

    def __call__(self, rows: int, text: int, /) -> bool: ...


class Batch:
    """Rows 0..n-1 of a cache that are being decoded together.

    `greedy_step` may do a step where no row draws its token. `steps` counts the steps: "recorded" are those that it
    did, "plain" the other greedy ones, "sampled" those where a row drew its token.
    """

    def __init__(
        self, decoder: Decoder, special: SpecialTokens, rows: int, cross: CrossAttentionCache | None = None
    ) -> None:
        self.decoder = decoder
        self._special = special
        self._device = decoder.positions.device.type
        self.capacity = rows
        like = decoder.positions
        cross = cross or PaddedCache(decoder.dims, rows, decoder.cross_kv, like)
        self.cache = Cache(decoder.dims, rows, like.to(decoder.cache_dtype), cross)
        self.sampler = Sampler(special, decoder.dims.vocabulary, self._device, decoder.library)
        self.cursor = Cursor.of(rows, self._device)
        self.greedy_step: GreedyStep | None = None
        self.steps: Counter[str] = Counter()
        self._generator = torch.Generator(self._device).manual_seed(0)
        self.rows: list[DecodeSequence] = []

    @property
    def room(self) -> int:
        return self.capacity - len(self.rows)

    def store(self, encoded: Tensor) -> int:
        """Stores the encoded audio [positions, width] for the next free row, which `join` takes. Returns its number."""
        row = len(self.rows)
        self.cache.cross.store(row, encoded)
        return row

    def language(self, row: int, candidates: Sequence[str] = ()) -> str:
        """The language that the audio of `row` is in, as the model detects it; one of `candidates` if it knows any."""
        logits = self._prefill(row, [self._special.start], [0])[0]
        known = list(self._special.languages)
        codes = [code for code in known if code in candidates] or known
        return codes[int(logits[[self._special.languages[code] for code in codes]].argmax())]

    def join(self, row: DecodeSequence) -> list[DecodeSequence]:
        """Begins to decode `row`, whose audio `store` took. Returns rows that are finished at once."""
        self.rows.append(row)
        return self._begin(len(self.rows) - 1)

    def retry(self, row: DecodeSequence) -> list[DecodeSequence]:
        """Decodes a row that has just finished once more, at the temperature that it has now."""
        return self._begin(self.rows.index(row))

    def _prefill(self, row: int, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Logits [places, vocabulary] after some of `tokens`, which open the text of `row`."""
        self.cache.reserve(len(tokens))
        ids = torch.tensor([list(tokens)], device=self._device)
        starts = torch.zeros(1, dtype=torch.int64, device=self._device)
        hidden = self.decoder(self.cache, slice(row, row + 1), ids, starts)
        return self.decoder.head(hidden[0, list(places)])

    def _begin(self, index: int) -> list[DecodeSequence]:
        row = self.rows[index]
        opening = row.prefix.index(self._special.start)
        logits = self._prefill(index, row.prefix, [opening, len(row.prefix) - 1])
        row.no_speech_prob = float(torch.softmax(logits[0], -1)[self._special.no_speech])
        state = self.cursor.state
        state.reset(index, row.temperature)
        self.cursor.lengths[index] = len(row.prefix)
        one = SamplerState(*(tensor[index : index + 1] for tensor in state.tensors))
        tokens, logprobs = self.sampler.choose(logits[1:], one, self._generator)
        self.cursor.tokens[index] = tokens[0]
        return self._take([row], tokens, logprobs)

    def step(self) -> list[DecodeSequence]:
        """One token for every row. Returns the rows that are finished; they stay until `leave` or `retry`."""
        count, cursor = len(self.rows), self.cursor
        length = max(row.length for row in self.rows)
        drawn = any(row.temperature > 0 for row in self.rows)
        recorded = not drawn and self.greedy_step is not None and self.greedy_step(count, length)
        if not recorded:
            self.plain_step(count, length)
        self.steps["recorded" if recorded else "sampled" if drawn else "plain"] += 1
        return self._take(self.rows, cursor.tokens[:count], cursor.logprobs[:count])

    def plain_step(self, count: int, length: int) -> None:
        """Moves the first `count` rows, none with more than `length` tokens, on by one token."""
        cursor = self.cursor
        self.cache.reserve(length)
        hidden = self.decoder(self.cache, slice(0, count), cursor.tokens[:count, None], cursor.lengths[:count])
        cursor.lengths[:count] += 1
        logits = self.decoder.head(hidden[:, 0])
        tokens, logprobs = self.sampler.choose(logits, cursor.state.head(count), self._generator)
        cursor.tokens[:count] = tokens
        cursor.logprobs[:count] = logprobs

    def _take(self, rows: Sequence[DecodeSequence], tokens: Tensor, logprobs: Tensor) -> list[DecodeSequence]:
        finished = []
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.logprobs.append(logprob)
            if token != self._special.end:
                row.tokens.append(token)
            row.complete = token == self._special.end
            if row.complete or row.length >= self.decoder.dims.context:
                finished.append(row)
        return finished

    def leave(self, row: DecodeSequence) -> None:
        """Frees the place of `row`; the last row moves into it."""
        index, last = self.rows.index(row), len(self.rows) - 1
        if index != last:
            self.cache.move(last, index)
            self.cursor.move(last, index)
            self.rows[index] = self.rows[last]
        self.rows.pop()

    def attention(
        self, row: DecodeSequence, tokens: Sequence[int], heads: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """How `tokens` attend to the audio of `row`, which has finished, and how likely each next one is.

        Attention [heads, tokens, positions] of the given (layer, head) pairs; log-probabilities [tokens - 1] of
        tokens[1:]. Overwrites the row's text in the cache.
        """
        index = self.rows.index(row)
        self.cache.reserve(len(tokens))
        ids = torch.tensor([list(tokens)], device=self._device)
        starts = torch.zeros(1, dtype=torch.int64, device=self._device)
        weights: list[Tensor] = []
        hidden = self.decoder(self.cache, slice(index, index + 1), ids, starts, weights)
        logprobs = torch.log_softmax(self.decoder.head(hidden[0, :-1]), -1).gather(1, ids[0, 1:, None])
        return torch.stack([weights[layer][0, head] for layer, head in heads]), logprobs[:, 0]
