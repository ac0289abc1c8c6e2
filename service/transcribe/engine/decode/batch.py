"""The batched decode loop: finished rows leave, new ones join, each with its own prompt, language and temperature."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transcribe.engine.decode.sampling import Sampler
from transcribe.engine.decode.state import RECENT, Cursor, DecodeSequence
from transcribe.engine.decode.word_attention import WordAttention
from transcribe.engine.model.config import SpecialTokens
from transcribe.engine.model.cross_attention_cache import CrossAttentionCache, PaddedCache
from transcribe.engine.model.network import Cache, Decoder

OPENING = 4  # tokens: longer ones have a prompt
BURST = 4  # steps that a GPU does before anybody looks at them: it need not wait each time; rows that end waste some
Stop = Callable[[DecodeSequence], bool]
Sound = npt.NDArray[np.float32]


class GreedyStep(Protocol):
    """Steps where no row draws its token, done in another way (cuda/graphs.py).

    Takes the number of rows, the tokens of the longest before the last of these steps, how many steps, and the first of
    the rows; returns whether it did them, and put what was chosen into the cursor's `recent`. It counts its failures,
    and says why it failed last.
    """

    failed_captures: int
    failure: str

    def __call__(self, rows: int, text: int, steps: int, first: int = 0, /) -> bool: ...

    def hidden(self, rows: int, /) -> Tensor | None:
        """What the decoder's head was given in the last step [rows, width], where that is kept."""


RecordedEncoder = Callable[[Sequence[Sound], int, int], bool]  # of sounds, frames and the first row: whether it did it


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
        heads = special.alignment_heads if special.word_times(decoder.dims) else ()
        self.words = WordAttention(decoder.dims, heads, rows, self._device)
        self.sampler = Sampler(special, decoder.dims.vocabulary, self._device, decoder.library)
        self.cursor = Cursor.of(rows, self._device)
        self.greedy_step: GreedyStep | None = None
        self.recorded_encoder: RecordedEncoder | None = None
        self.steps: Counter[str] = Counter()
        self._generator = torch.Generator(self._device).manual_seed(0)
        self.rows: list[DecodeSequence] = []

    @property
    def room(self) -> int:
        return self.capacity - len(self.rows)

    def encode(self, sounds: Sequence[Sound], frames: int) -> int | None:
        """Encodes recordings of one size and stores them as `store` does, if that is recorded; None otherwise."""
        first = len(self.rows)
        return first if self.recorded_encoder is not None and self.recorded_encoder(sounds, frames, first) else None

    def store(self, encoded: Tensor) -> int:
        """Stores encoded audio [windows, positions, width] for the next free rows, which `join` takes. Returns the
        first row's number."""
        first = len(self.rows)
        self.cache.cross.store(first, encoded)
        return first

    def languages(self, first: int, candidates: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """The natural logarithms of the probabilities of the languages that the audio from row `first` on is in: for
        each row of its `candidates`, if the model knows any, or else of all."""
        opening = [self._special.start]
        logits = self._prefill(first, [opening] * len(candidates), [[0]] * len(candidates))[:, 0]
        known = list(self._special.languages)
        found = []
        for row, wanted in zip(logits, candidates, strict=True):
            codes = [code for code in known if code in wanted] or known
            chances = torch.log_softmax(row[[self._special.languages[code] for code in codes]].float(), -1)
            found.append(dict(zip(codes, chances.tolist(), strict=True)))
        return found

    def join(self, rows: Sequence[DecodeSequence]) -> list[DecodeSequence]:
        """Begins to decode `rows`, whose audio `store` took in this order. Returns those that are finished at once."""
        first = len(self.rows)
        self.rows += rows
        return self._begin(first, rows)

    def retry(self, row: DecodeSequence) -> list[DecodeSequence]:
        """Decodes a row that has just finished once more, at the temperature that it has now."""
        return self._begin(self.rows.index(row), [row])

    def _prefill(self, first: int, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Tensor:
        """Logits [rows, places, vocabulary] after some of the tokens that open the texts of rows from `first` on.

        Shorter texts are filled up: what is written behind their end is overwritten before it is read.
        """
        longest = max(len(tokens) for tokens in texts)
        self.cache.reserve(longest)
        ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in texts], device=self._device)
        starts = torch.zeros(len(texts), dtype=torch.int64, device=self._device)
        hidden = self.decoder(self.cache, slice(first, first + len(texts)), ids, starts)
        row = torch.arange(len(texts), device=self._device)[:, None]
        wanted = hidden[row, torch.tensor(places, device=self._device)]
        return self.decoder.head(wanted.flatten(0, 1)).view(*wanted.shape[:2], -1)

    def _begin(self, first: int, rows: Sequence[DecodeSequence]) -> list[DecodeSequence]:
        texts = [row.prefix for row in rows]
        brief = {len(text) for text in texts} == {len(texts[0])} and len(texts[0]) <= OPENING
        greedy = self.greedy_step is not None and not any(row.temperature for row in rows)
        if brief and greedy and self._open(first, rows, texts):
            where = slice(first, first + len(rows))
            return self._take(rows, self.cursor.tokens[where].tolist(), self.cursor.logprobs[where].tolist())
        logits = self._prefill(first, texts, [[text.index(self._special.start), len(text) - 1] for text in texts])
        silence = torch.softmax(logits[:, 0], -1)[:, self._special.no_speech].tolist()
        for row, probability in zip(rows, silence, strict=True):
            row.no_speech_prob = probability
        where, cursor = slice(first, first + len(rows)), self.cursor
        state = cursor.state.of_rows(where)
        state.reset(torch.tensor([row.temperature for row in rows]))
        cursor.lengths[where] = torch.tensor([len(text) for text in texts]).to(self._device)
        tokens, logprobs = self.sampler.choose(logits[:, 1].contiguous(), state, self._generator)
        cursor.tokens[where] = tokens
        return self._take(rows, tokens.tolist(), logprobs.tolist())

    @property
    def burst(self) -> int:
        """Tokens for every row in one `step`, at most."""
        return BURST if self.greedy_step is not None else 1

    def _open(self, first: int, rows: Sequence[DecodeSequence], texts: Sequence[Sequence[int]]) -> bool:
        """Reads the opening of rows from `first` on, of one length, by recorded steps, and chooses their first tokens:
        whether that is possible. A few such steps start sooner than what reads many tokens at once."""
        assert self.greedy_step is not None
        count, silence = len(rows), None
        where, cursor = slice(first, first + count), self.cursor
        openings = torch.tensor(texts, device=self._device)
        cursor.lengths[where] = 0
        for place in range(openings.shape[1]):
            cursor.tokens[where] = openings[:, place]
            if place == openings.shape[1] - 1:
                cursor.state.of_rows(where).reset(torch.zeros(count))
            if not self.greedy_step(count, place + 1, 1, first) or (hidden := self.greedy_step.hidden(count)) is None:
                return False
            if texts[0][place] == self._special.start:
                silence = torch.softmax(self.decoder.head(hidden), -1)[:, self._special.no_speech]
        assert silence is not None
        for row, probability in zip(rows, silence.tolist(), strict=True):
            row.no_speech_prob = probability
        return True

    def step(self, stop: Stop = lambda _: False, only: int | None = None) -> list[DecodeSequence]:
        """A token for every row, or a few; where steps are not recorded, for one `only`. Returns the rows that are
        finished, or that `stop` wants no more of, which is asked after each token; they stay until `leave` or `retry`.
        """
        where = slice(0, len(self.rows))
        if only is not None and self.greedy_step is None:
            where = slice(only, only + 1)
        going, cursor = self.rows[where], self.cursor
        length = max(row.length for row in going)
        drawn = any(row.temperature > 0 for row in going)
        steps = min(self.burst, self.decoder.dims.context - length)
        if not drawn and self.greedy_step is not None and self.greedy_step(len(going), length + steps - 1, steps):
            self.steps["recorded"] += steps
            return self._take_recent(steps, stop)
        self.plain_step(len(going), length, where.start)
        self.steps["sampled" if drawn else "plain"] += 1
        return self._take(going, cursor.tokens[where].tolist(), cursor.logprobs[where].tolist(), stop)

    def plain_step(self, count: int, length: int, first: int = 0) -> None:
        """Moves `count` rows from `first` on, none with more than `length` tokens, on by one token."""
        cursor, rows = self.cursor, slice(first, first + count)
        self.cache.reserve(length)
        heed = None
        if any(row.request.options.words for row in self.rows[rows]):
            self.words.reserve(length)
            heed = functools.partial(self.words.note, places=cursor.lengths[rows], first=first)
        hidden = self.decoder(self.cache, rows, cursor.tokens[rows, None], cursor.lengths[rows], heed)
        cursor.lengths[rows] += 1
        logits = self.decoder.head(hidden[:, 0])
        tokens, logprobs = self.sampler.choose(logits, cursor.state.of_rows(rows), self._generator)
        cursor.tokens[rows] = tokens
        cursor.logprobs[rows] = logprobs

    def _take(
        self,
        rows: Sequence[DecodeSequence],
        tokens: Sequence[int],
        logprobs: Sequence[float],
        stop: Stop = lambda _: False,
    ) -> list[DecodeSequence]:
        chosen = zip(rows, tokens, logprobs, strict=True)
        return [row for row, token, logprob in chosen if self._ends(row, token, logprob, stop)]

    def _ends(self, row: DecodeSequence, token: int, logprob: float, stop: Stop) -> bool:
        """Adds what was chosen to the row; whether that is finished."""
        row.logprobs.append(logprob)
        row.complete = token == self._special.end
        if not row.complete:
            row.tokens.append(token)
        return row.complete or row.length >= self.decoder.dims.context or stop(row)

    def _take_recent(self, steps: int, stop: Stop) -> list[DecodeSequence]:
        """What the last steps chose for all rows; of a row that is finished, nothing more."""
        recent = self.cursor.recent.cpu()[..., : len(self.rows)]  # one transfer for all of them
        tokens, logprobs = recent[:, 0].tolist(), recent[:, 1].view(torch.float32).tolist()
        finished: list[DecodeSequence] = []
        for index, row in enumerate(self.rows):
            for _ in range(steps):
                place = (row.length - 1) % RECENT
                if self._ends(row, tokens[place][index], logprobs[place][index], stop):
                    finished.append(row)
                    break
        return finished

    def leave(self, row: DecodeSequence) -> None:
        """Frees the place of `row`; the last row moves into it."""
        index, last = self.rows.index(row), len(self.rows) - 1
        if index != last:
            self.cache.move(last, index)
            self.cursor.move(last, index)
            if self.rows[last].request.options.words:
                self.words.move(last, index, self.rows[last].length)
            self.rows[index] = self.rows[last]
        self.rows.pop()

    def rest(self) -> None:
        """Gives up what only rows under way need, which grew with the most and the longest of them. Where steps are
        recorded it stays: they go by where it lies."""
        if not self.rows and self.greedy_step is None:
            self.cache.clear()
            self.words.clear()

    def attention(self, row: DecodeSequence) -> Tensor:
        """What the alignment heads attended to when the tokens of `row` were chosen, whose request wants words:
        [heads, places, positions]. The token that follows the one at a place was chosen there."""
        return self.words.of(self.rows.index(row), row.length) if row.attention is None else row.attention
