"""The kernels of a GPU's step by torch's operations, on any device and in any precision: what the real ones must do."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transcribe.engine.cuda.kernels import Audio, StepKernels, Three
from transcribe.engine.decode.sampling import Sampler
from transcribe.engine.decode.state import RECENT, Cursor
from transcribe.engine.model.network import Norm


class TorchKernels(StepKernels):
    """Row by row, as the definitions say."""

    def add_norm(self, x: Tensor, more: Tensor, norm: Norm) -> Tensor:
        x += more
        return norm(x)

    def attend_text(self, qkv: Tensor, keys: Tensor, values: Tensor, places: Tensor) -> Tensor:
        rows, heads, context, size = keys.shape
        parts = qkv.view(rows, 3, heads, size)
        mixed = torch.empty(rows, heads, size, dtype=qkv.dtype, device=qkv.device)
        for row, place in enumerate(places.clamp(max=context - 1).tolist()):
            keys[row, :, place], values[row, :, place] = parts[row, 1], parts[row, 2]
            mixed[row] = _attend(parts[row, 0], keys[row, :, : place + 1], values[row, :, : place + 1])[0]
        return mixed.flatten(1)

    def attend_audio(self, query: Tensor, audio: Audio, kept: Three) -> Tensor:
        keys, values, lengths, *scales = audio
        if scales:
            keys, values = (part * scale[..., None] for part, scale in zip((keys, values), scales[0], strict=True))
        slots, places, weights = kept
        rows, heads, _, size = keys.shape
        mixed = torch.zeros(rows, heads, size, dtype=query.dtype, device=query.device)
        for row, length in enumerate(lengths.tolist()):
            if not length:
                continue
            head = query[row].view(heads, size)
            mixed[row], shares = _attend(head, keys[row, :, :length], values[row, :, :length])
            for number, slot in enumerate(slots.tolist()):
                if slot >= 0:
                    weights[row, slot, int(places[row].clamp(max=weights.shape[2] - 1)), :length] = shares[number]
        return mixed.flatten(1)

    def keep_audio(self, product: Tensor, target: Three) -> None:
        count, length = product.shape[:2]
        keys, values, scales = target
        for part, (found, kept) in enumerate(zip(product.transpose(1, 3).unbind(2), (keys, values), strict=True)):
            scale = (found.abs().amax(-1) / 127).clamp(min=1e-6).to(scales.dtype)
            kept[:count, :, :length] = (found / scale[..., None]).round().clamp(-127, 127).to(torch.int8)
            scales[part, :count, :, :length] = scale

    def choose(self, logits: Tensor, sampler: Sampler, cursor: Cursor) -> None:
        rows = slice(0, len(logits))
        vocabulary = sampler.limits[0]
        tokens, logprobs = sampler.choose(logits[:, :vocabulary].float(), cursor.state.of_rows(rows), None)
        place, row = cursor.lengths[rows] % RECENT, torch.arange(len(logits), device=logits.device)
        cursor.recent[place, 0, row] = tokens.to(torch.int32)
        cursor.recent[place, 1, row] = logprobs.float().view(torch.int32)
        cursor.tokens[rows], cursor.logprobs[rows] = tokens, logprobs
        cursor.lengths[rows] += 1


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """query [heads, size], keys and values [heads, length, size] → [heads, size] and the weights [heads, length]."""
    shares = F.softmax((keys.double() @ query.double()[..., None])[..., 0], -1)
    return (shares[:, None] @ values.double())[:, 0].to(query.dtype), shares.to(query.dtype)
