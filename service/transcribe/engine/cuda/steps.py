"""One token for every row without asking the device anything: what a GPU can record once and replay.

The plain step starts hundreds of small kernels from Python for every token, which on a GPU takes longer than they run.
Here the buffers stay where they are and sizes are rounded up to a few, so that a step can be recorded for each of them
as a CUDA graph. Rows beyond those that are in use are computed too; nothing reads them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from transcribe.engine.decode.sampling import Rules, RuleState
from transcribe.engine.model.cross_attention_cache import Padded
from transcribe.engine.model.network import Cache, Decoder, DecoderLayer

TEXT_SIZES = (64, 128, 256)  # tokens that are looked at; beyond them it is the decoder's whole context
AUDIO_SHARES = 2  # the audio is looked at up to its half, or whole


@dataclass(frozen=True)
class Cursor:
    """Where the rows of a batch are: what a step reads and moves on, [rows] each."""

    tokens: Tensor  # int64: to be decoded next; after a step, what it chose
    lengths: Tensor  # int64: of the text before them
    logprobs: Tensor  # float32: of what was chosen last
    state: RuleState

    @classmethod
    def of(cls, rows: int, device: str) -> "Cursor":
        zeros = torch.zeros(2, rows, dtype=torch.int64, device=device)
        return cls(zeros[0], zeros[1], torch.zeros(rows, device=device), RuleState.of(rows, device))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.tokens, self.lengths, self.logprobs, *self.state.tensors

    def move(self, source: int, target: int) -> None:
        for tensor in self.tensors:
            tensor[target] = tensor[source]


class StaticStep:
    """A greedy step over a cache with room for the whole context, in buffers that it never replaces."""

    def __init__(self, decoder: Decoder, cache: Cache, rules: Rules, cursor: Cursor) -> None:
        assert isinstance(cache.heard, Padded)
        assert decoder.layers
        cache.reserve(decoder.shape.context)
        self._decoder = decoder
        self._cache = cache
        self._heard = cache.heard
        self._rules = rules
        self.cursor = cursor

    def sizes(self, rows: int, text: int) -> tuple[int, int, int]:
        """What this is called with for the first `rows`, none with more than `text` tokens, the next one included."""
        shape = self._decoder.shape
        tokens = next((size for size in TEXT_SIZES if text <= size < shape.context), shape.context)
        share = -(-shape.positions // AUDIO_SHARES)
        audio = min(-(-self._heard.longest(rows) // share) * share, shape.positions)
        return min(1 << (rows - 1).bit_length(), len(self.cursor.tokens)), tokens, audio

    def __call__(self, rows: int, text: int, audio: int) -> None:
        """Decodes a token of the first `rows`, looking at `text` tokens and at `audio` positions."""
        cursor = self.cursor
        places = cursor.lengths[:rows].clamp(max=text - 1)  # a row that is not in use may be anywhere
        logits = self._decoder.head(self._hidden(places, text, audio))
        tokens, logprobs = self._rules.choose(logits, cursor.state.head(rows), None)
        cursor.tokens[:rows].copy_(tokens)
        cursor.logprobs[:rows].copy_(logprobs)
        cursor.lengths[:rows].add_(1)

    def _hidden(self, places: Tensor, text: int, audio: int) -> Tensor:
        """[rows, width]"""
        decoder, rows = self._decoder, len(places)
        x = decoder.embed(self.cursor.tokens[:rows]) + decoder.positions[places]
        ahead = torch.arange(text, device=places.device) > places[:, None, None, None]
        mask = torch.zeros(ahead.shape, dtype=x.dtype, device=x.device).masked_fill_(ahead, float("-inf"))
        for index, layer in enumerate(decoder.layers):
            x = x + layer.out(self._attend_text(index, layer.qkv(layer.norm1(x)), places, mask))
            x = x + self._attend_audio(index, layer, x, audio)
            x = x + layer.fc2(layer.fc1(layer.norm_ffn(x)))
        return decoder.norm(x)

    def _attend_text(self, index: int, qkv: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        rows, text = len(qkv), mask.shape[-1]
        q, k, v = qkv.view(rows, 3, self._decoder.shape.decoder_heads, -1).unbind(1)
        keys, values = self._cache.keys[index, :rows], self._cache.values[index, :rows]
        row = torch.arange(rows, device=qkv.device)
        keys[row, :, places] = k
        values[row, :, places] = v
        scores = q[:, :, None] @ keys[:, :, :text].transpose(2, 3)
        weights = torch.softmax(scores + mask, dim=-1)
        return (weights @ values[:, :, :text]).reshape(rows, -1)

    def _attend_audio(self, index: int, layer: DecoderLayer, x: Tensor, audio: int) -> Tensor:
        query = layer.query(layer.norm_cross(x))[:, None]
        return layer.cross_out(self._heard.attend_within(index, slice(0, len(x)), query, audio)[:, 0])
