"""The kernels of a GPU's step by torch's operations, on any device and in any precision: what the real ones must do."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transcribe.engine.cuda.kernels import Audio, StepKernels, Three
from transcribe.engine.decode.sampling import Sampler
from transcribe.engine.decode.state import RECENT, Cursor
from transcribe.engine.model.network import Decoder, Norm


class TorchKernels(StepKernels):
    """Row by row, as the definitions say."""

    def add_norm(self, x: Tensor, more: Tensor, norm: Norm) -> Tensor:
        x += more
        return norm(x)

    def embed(self, cursor: Cursor, decoder: Decoder, first: Tensor, rows: int) -> Tensor:
        numbers = _rows(first, rows, len(cursor.tokens))
        assert decoder.head_weight is not None
        x = torch.zeros(rows, decoder.dims.width, dtype=decoder.positions.dtype, device=first.device)
        places = cursor.lengths[numbers].clamp(max=decoder.dims.context - 1)
        x[: len(numbers)] = decoder.head_weight[cursor.tokens[numbers]] + decoder.positions[places]
        return x

    def attend_text(self, qkv: Tensor, cache: tuple[Tensor, Tensor], places: Tensor, first: Tensor) -> Tensor:
        keys, values = cache
        capacity, heads, context, size = keys.shape
        parts = qkv.view(-1, 3, heads, size)
        mixed = torch.zeros(len(qkv), heads, size, dtype=qkv.dtype, device=qkv.device)
        for one, row in enumerate(_rows(first, len(qkv), capacity)):
            place = min(int(places[row]), context - 1)
            keys[row, :, place], values[row, :, place] = parts[one, 1], parts[one, 2]
            mixed[one] = _attend(parts[one, 0], keys[row, :, : place + 1], values[row, :, : place + 1])[0]
        return mixed.flatten(1)

    def attend_audio(self, query: Tensor, audio: Audio, kept: Three, first: Tensor) -> Tensor:
        keys, values, lengths, *scales = audio
        if scales:
            keys, values = (part * scale[..., None] for part, scale in zip((keys, values), scales[0], strict=True))
        slots, places, weights = kept
        capacity, heads, _, size = keys.shape
        mixed = torch.zeros(len(query), heads, size, dtype=query.dtype, device=query.device)
        for one, row in enumerate(_rows(first, len(query), capacity)):
            length = int(lengths[row])
            if not length:
                continue
            head = query[one].view(heads, size)
            mixed[one], shares = _attend(head, keys[row, :, :length], values[row, :, :length])
            for number, slot in enumerate(slots.tolist()):
                if slot >= 0:
                    weights[row, slot, min(int(places[row]), weights.shape[2] - 1), :length] = shares[number]
        return mixed.flatten(1)

    def keep_audio(self, product: Tensor, target: Three, first: Tensor) -> None:
        keys, values, scales = target
        rows, length = _rows(first, len(product), len(keys)), product.shape[1]
        for part, (found, kept) in enumerate(zip(product.transpose(1, 3).unbind(2), (keys, values), strict=True)):
            scale = (found.abs().amax(-1) / 127).clamp(min=1e-6).to(scales.dtype)
            levels = (found / scale[..., None]).round().clamp(-127, 127).to(torch.int8)
            for one, row in enumerate(rows):
                kept[row, :, :length] = levels[one]
                scales[part, row, :, :length] = scale[one]

    def choose(self, logits: Tensor, sampler: Sampler, cursor: Cursor, first: Tensor) -> None:
        numbers = _rows(first, len(logits), len(cursor.tokens))
        rows = slice(numbers.start, numbers.stop)
        known = logits[: len(numbers), : sampler.limits[0]].float()
        tokens, logprobs = sampler.choose(known, cursor.state.of_rows(rows), None)
        place, row = cursor.lengths[rows] % RECENT, torch.arange(rows.start, rows.stop, device=logits.device)
        cursor.recent[place, 0, row] = tokens.to(torch.int32)
        cursor.recent[place, 1, row] = logprobs.float().view(torch.int32)
        cursor.tokens[rows], cursor.logprobs[rows] = tokens, logprobs
        cursor.lengths[rows] += 1


def _rows(first: Tensor, count: int, capacity: int) -> range:
    """Those of the batch that are meant."""
    return range(int(first), min(int(first) + count, capacity))


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """query [heads, size], keys and values [heads, length, size] → [heads, size] and the weights [heads, length]."""
    shares = F.softmax((keys.double() @ query.double()[..., None])[..., 0], -1)
    return (shares[:, None] @ values.double())[:, 0].to(query.dtype), shares.to(query.dtype)
