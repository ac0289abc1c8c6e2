"""Which precision a device works in: what is asked for, or what is fastest here."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from . import attention, quantize
from .api import EngineError
from .network import Linear
from .quantize import BFLOAT16, FLOAT16, FLOAT32, INT8
from .spec import Shape

CHOICES = ("auto", FLOAT32, FLOAT16, BFLOAT16, INT8)
DECODER_ROWS = 8  # that the decoder's speed is measured with
REPEATS = 5


@dataclass(frozen=True)
class Precision:
    """Kinds of the two networks' matrices; `audio` is that of the encoded audio in the decoder's cache."""

    encoder: str
    decoder: str
    audio: str
    wide: str  # of everything that is no matrix

    @property
    def kinds(self) -> Mapping[str, str]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    @property
    def attend(self) -> attention.Attention:
        narrow = self.encoder in {INT8, BFLOAT16} and self.audio == BFLOAT16
        return attention.by_head if narrow else attention.fused


def _seconds(linear: Linear, rows: int, width: int) -> float:
    x = torch.randn(rows, width)
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        linear(x)
        times.append(time.perf_counter() - begin)
    return min(times)


def measure(shape: Shape) -> dict[str, dict[str, float]]:
    """Milliseconds that a matrix of the model takes in each kind that this processor has: {"encoder": {kind: ms}}."""
    weight = torch.randn(4 * shape.width, shape.width)
    candidates = {FLOAT32: quantize.float_linear(weight, None)}
    if quantize.bfloat16_products():
        candidates[BFLOAT16] = quantize.float_linear(weight.bfloat16(), None)
    if quantize.int8_products():
        candidates[INT8] = quantize.int8_linear(*quantize.quantized(weight), None)
    rows = {"encoder": shape.positions, "decoder": DECODER_ROWS}
    return {
        side: {kind: round(_seconds(linear, count, shape.width) * 1000, 4) for kind, linear in candidates.items()}
        for side, count in rows.items()
    }


def of(dtype: str, device: str, fastest: Mapping[str, str]) -> Precision:
    """The precision for a wish. `fastest` are the kinds that `measure` found best, for "auto" on a processor."""
    if dtype not in CHOICES:
        raise EngineError(f"unknown dtype {dtype!r}: set dtype to one of {', '.join(CHOICES)}")
    if device == "cuda":
        if dtype == INT8:
            raise EngineError("int8 is for processors: set dtype to auto or float16 on a GPU")
        kind = FLOAT16 if dtype == "auto" else dtype
        return Precision(kind, kind, kind, kind)
    if dtype == FLOAT16:
        raise EngineError("float16 is for GPUs and very slow on processors: set dtype to auto, int8 or float32")
    if dtype == FLOAT32:
        return Precision(FLOAT32, FLOAT32, FLOAT32, FLOAT32)
    audio = BFLOAT16 if quantize.bfloat16_products() else FLOAT32
    if dtype == "auto":
        return Precision(fastest["encoder"], fastest["decoder"], audio, FLOAT32)
    return Precision(dtype, dtype, audio, FLOAT32)
