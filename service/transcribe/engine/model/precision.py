"""Which precision a device works in: what is asked for, or what is fastest here."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import int8
from transcribe.engine.cpu import threads as openmp
from transcribe.engine.cpu.constants import BLOCK, CHANNELS
from transcribe.engine.cpu.library import Library, instructions
from transcribe.engine.model import attention, quantize
from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.config import Shape
from transcribe.engine.model.cross_attention_cache import Heard, Padded
from transcribe.engine.model.quantize import BFLOAT16, FLOAT16, FLOAT32, INT8
from transcribe.engine.model.remembered import Remembered

CHOICES = ("auto", FLOAT32, FLOAT16, BFLOAT16, INT8)
DECODER_ROWS = 8  # that the decoder's speed is measured with
AUDIO_LAYERS = 2  # that listen in turn: what one layer reads of a small model stays in the processor's cache
REPEATS = 15


@dataclass(frozen=True)
class Precision:
    """Kinds of the two networks' matrices; `audio` is that of the encoded audio in the decoder's cache."""

    encoder: str
    decoder: str
    audio: str
    wide: str  # of everything that is no matrix

    @property
    def kinds(self) -> Mapping[str, str]:
        return {"encoder": self.encoder, "decoder": self.decoder, "cross": self.cross}

    @property
    def cross(self) -> str:
        """Kind of the matrices that make keys and values of the encoded audio."""
        return INT8 if self.audio == INT8 else self.decoder

    @property
    def by_head(self) -> bool:
        """Whether the encoder's attention is in bfloat16 on a processor."""
        on_processor = self.encoder == BFLOAT16 and self.wide == FLOAT32
        return on_processor and quantize.bfloat16_products() and bool(instructions())

    @property
    def compiled(self) -> bool:
        """Whether it needs the kernels that are compiled for the processor."""
        return INT8 in {self.encoder, self.decoder, self.audio} or self.by_head

    def attend(self, library: Library | None) -> attention.Attention:
        return functools.partial(attention.by_head, library) if self.by_head and library else attention.fused


def _milliseconds(candidates: Mapping[str, Callable[[Tensor], object]], rows: int, width: int) -> dict[str, float]:
    """The shortest time of each candidate on one thread: where anything else runs, threads wait for each other longer
    than they work. Taken in turns, so that what else the machine does hits all alike."""
    x = torch.randn(rows, width)
    times = dict.fromkeys(candidates, math.inf)
    threads = torch.get_num_threads()
    openmp.limit(1)
    for _ in range(REPEATS):
        for kind, work in candidates.items():
            begin = time.perf_counter()
            work(x)
            times[kind] = min(times[kind], time.perf_counter() - begin)
    openmp.limit(threads)
    return {kind: round(seconds * 1000, 4) for kind, seconds in times.items()}


def int8_fits(shape: Shape) -> bool:
    """Whether the processor has what int8 needs, and the kernels are made for such a model: for all published ones."""
    sizes = shape.width % BLOCK or shape.feed_forward % BLOCK or shape.width // shape.decoder_heads % CHANNELS
    return bool(instructions()) and not sizes and shape.activation == "gelu"


def _heard(shape: Shape, library: Callable[[], Library]) -> dict[str, float]:
    """Milliseconds that a token of DECODER_ROWS rows takes to listen in AUDIO_LAYERS layers, by precision."""
    few = replace(shape, decoder_layers=AUDIO_LAYERS)
    weight, bias = torch.randn(2 * shape.width, shape.width), torch.zeros(2 * shape.width)
    cross = [quantize.float_linear(weight, bias)] * AUDIO_LAYERS
    candidates: dict[str, Heard] = {FLOAT32: Padded(few, DECODER_ROWS, cross, torch.empty(0))}
    if quantize.bfloat16_products():
        candidates[BFLOAT16] = Padded(few, DECODER_ROWS, cross, torch.empty(0, dtype=torch.bfloat16))
    if int8_fits(shape):
        narrow = int8.many_rows(library(), *int8.quantized(weight), bias)
        candidates[INT8] = Remembered(few, DECODER_ROWS, [narrow] * AUDIO_LAYERS, library())
    encoded = torch.randn(shape.positions - 1, shape.width)  # a full window is rare
    for heard in candidates.values():
        for row in range(DECODER_ROWS):
            heard.listen(row, encoded)
    attend = {kind: functools.partial(_attend, heard) for kind, heard in candidates.items()}
    return _milliseconds(attend, DECODER_ROWS, shape.width)


def _attend(heard: Heard, queries: Tensor) -> None:
    for layer in range(AUDIO_LAYERS):
        heard.attend(layer, slice(0, len(queries)), queries[:, None])


def measure(shape: Shape, library: Callable[[], Library]) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind that suits processor and model: {"encoder": {kind: ms}}. `library` gives the kernels.

    For "encoder" and "decoder" they are those of one matrix of the model, for "audio" those of the encoded audio in the
    decoder's cache.
    """
    weight = torch.randn(4 * shape.width, shape.width)
    rows = {"encoder": shape.positions, "decoder": DECODER_ROWS}
    result: dict[str, dict[str, float]] = {}
    for side, count in rows.items():
        candidates: dict[str, Linear] = {FLOAT32: quantize.float_linear(weight, None)}
        if quantize.bfloat16_products():
            candidates[BFLOAT16] = quantize.float_linear(weight.bfloat16(), None)
        if int8_fits(shape):
            make = int8.few_rows if side == "decoder" else int8.many_rows
            candidates[INT8] = make(library(), *int8.quantized(weight), None)
        result[side] = _milliseconds(candidates, count, shape.width)
    return {**result, "audio": _heard(shape, library)}


def fastest(measured: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The best kind for each side of what `measure` found."""
    return {side: min(times, key=lambda kind: times[kind]) for side, times in measured.items()}


def of(dtype: str, device: str, best: Mapping[str, str], *, narrow: bool = True) -> Precision:
    """The precision for a wish. `best` are the kinds that `fastest` names, for "auto" on a processor; `narrow` is
    whether `int8_fits`. Raises EngineError for what device or model cannot do."""
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
    if dtype == "auto":
        return Precision(best["encoder"], best["decoder"], best["audio"], FLOAT32)
    if dtype == INT8 and not narrow:
        raise EngineError("int8 needs AVX2 with FMA and a model of Whisper's own sizes: set dtype to auto or float32")
    if dtype == INT8:
        return Precision(INT8, INT8, INT8, FLOAT32)
    return Precision(BFLOAT16, BFLOAT16, BFLOAT16, FLOAT32)
