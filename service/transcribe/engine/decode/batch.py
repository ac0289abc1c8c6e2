"""The batched decode loop: finished rows leave, new ones join, each with its own prompt, language and temperature."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transcribe.engine.cuda.graphs import Capture, Replay
from transcribe.engine.cuda.steps import Cursor, StaticStep
from transcribe.engine.decode.sampling import Rules, RuleState
from transcribe.engine.decode.state import Row
from transcribe.engine.model.config import Special
from transcribe.engine.model.cross_attention_cache import Heard, Padded
from transcribe.engine.model.network import Cache, Decoder


class Batch:
    """Rows 0..n-1 of a cache that are being decoded together."""

    def __init__(self, decoder: Decoder, special: Special, rows: int, heard: Heard | None = None) -> None:
        self._decoder = decoder
        self._special = special
        self._device = decoder.positions.device.type
        self.capacity = rows
        like = decoder.positions
        heard = heard or Padded(decoder.shape, rows, decoder.crosses, like)
        self.cache = Cache(decoder.shape, rows, like.to(decoder.remembers), heard)
        self._rules = Rules(special, decoder.shape.vocabulary, self._device, decoder.kernels)
        self.cursor = Cursor.of(rows, self._device)
        self._replay: Replay | None = None
        self._generator = torch.Generator(self._device).manual_seed(0)
        self.rows: list[Row] = []

    @property
    def room(self) -> int:
        return self.capacity - len(self.rows)

    def record(self, capture: Capture) -> Replay:
        """From now on greedy steps are recorded by `capture` and replayed, until it fails. The audio must be Padded."""
        self._replay = Replay(StaticStep(self._decoder, self.cache, self._rules, self.cursor), capture)
        return self._replay

    def listen(self, encoded: Tensor) -> int:
        """Gives the next free row its audio [positions, width]; it joins by `join`. Returns the row's number."""
        row = len(self.rows)
        self.cache.heard.listen(row, encoded)
        return row

    def language(self, row: int, candidates: Sequence[str] = ()) -> str:
        """The language that the audio of `row` is in, as the model hears it; one of `candidates` if it knows any."""
        logits = self._prefill(row, [self._special.start], [0])[0]
        known = list(self._special.languages)
        codes = [code for code in known if code in candidates] or known
        return codes[int(logits[[self._special.languages[code] for code in codes]].argmax())]

    def join(self, row: Row) -> list[Row]:
        """Begins to decode `row`, whose audio `listen` took. Returns rows that are finished at once."""
        self.rows.append(row)
        return self._begin(len(self.rows) - 1)

    def retry(self, row: Row) -> list[Row]:
        """Decodes a row that has just finished once more, at the temperature that it has now."""
        return self._begin(self.rows.index(row))

    def _prefill(self, row: int, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Logits [places, vocabulary] after some of `tokens`, which open the text of `row`."""
        self.cache.reserve(len(tokens))
        ids = torch.tensor([list(tokens)], device=self._device)
        starts = torch.zeros(1, dtype=torch.int64, device=self._device)
        hidden = self._decoder(self.cache, slice(row, row + 1), ids, starts)
        return self._decoder.head(hidden[0, list(places)])

    def _begin(self, index: int) -> list[Row]:
        row = self.rows[index]
        opening = row.prefix.index(self._special.start)
        logits = self._prefill(index, row.prefix, [opening, len(row.prefix) - 1])
        row.no_speech_prob = float(torch.softmax(logits[0], -1)[self._special.no_speech])
        state = self.cursor.state
        state.reset(index, row.temperature)
        self.cursor.lengths[index] = len(row.prefix)
        one = RuleState(*(tensor[index : index + 1] for tensor in state.tensors))
        tokens, logprobs = self._rules.choose(logits[1:], one, self._generator)
        self.cursor.tokens[index] = tokens[0]
        return self._take([row], tokens, logprobs)

    def step(self) -> list[Row]:
        """One token for every row. Returns the rows that are finished; they stay until `leave` or `retry`."""
        count, cursor = len(self.rows), self.cursor
        length = max(row.length for row in self.rows)
        if self._replay is None or any(row.temperature > 0 for row in self.rows) or not self._replay(count, length):
            self.plain_step(count, length)
        return self._take(self.rows, cursor.tokens[:count], cursor.logprobs[:count])

    def plain_step(self, count: int, length: int) -> None:
        """Moves the first `count` rows, none with more than `length` tokens, on by one token."""
        cursor = self.cursor
        self.cache.reserve(length)
        hidden = self._decoder(self.cache, slice(0, count), cursor.tokens[:count, None], cursor.lengths[:count])
        cursor.lengths[:count] += 1
        logits = self._decoder.head(hidden[:, 0])
        tokens, logprobs = self._rules.choose(logits, cursor.state.head(count), self._generator)
        cursor.tokens[:count] = tokens
        cursor.logprobs[:count] = logprobs

    def _take(self, rows: Sequence[Row], tokens: Tensor, logprobs: Tensor) -> list[Row]:
        finished = []
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.logprobs.append(logprob)
            if token != self._special.end:
                row.tokens.append(token)
            row.complete = token == self._special.end
            if row.complete or row.length >= self._decoder.shape.context:
                finished.append(row)
        return finished

    def leave(self, row: Row) -> None:
        """Frees the place of `row`; the last row moves into it."""
        index, last = self.rows.index(row), len(self.rows) - 1
        if index != last:
            self.cache.move(last, index)
            self.cursor.move(last, index)
            self.rows[index] = self.rows[last]
        self.rows.pop()

    def attention(self, row: Row, tokens: Sequence[int], heads: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """How `tokens` attend to the audio of `row`, which has finished, and how likely each next one is.

        Attention [heads, tokens, positions] of the given (layer, head) pairs; log-probabilities [tokens - 1] of
        tokens[1:]. Overwrites the row's text in the cache.
        """
        index = self.rows.index(row)
        self.cache.reserve(len(tokens))
        ids = torch.tensor([list(tokens)], device=self._device)
        starts = torch.zeros(1, dtype=torch.int64, device=self._device)
        layers: list[Tensor] = []
        hidden = self._decoder(self.cache, slice(index, index + 1), ids, starts, layers)
        logprobs = torch.log_softmax(self._decoder.head(hidden[0, :-1]), -1).gather(1, ids[0, 1:, None])
        return torch.stack([layers[layer][0, head] for layer, head in heads]), logprobs[:, 0]
