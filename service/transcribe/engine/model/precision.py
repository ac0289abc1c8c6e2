"""Which precision a device works in: what is asked for, or what is fastest here."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import threads
from transcribe.engine.cpu.constants import BLOCK, CHANNELS
from transcribe.engine.cpu.int8 import gemm, gemv, quantized
from transcribe.engine.cpu.library import Library, instructions
from transcribe.engine.model import network, quantize
from transcribe.engine.model.checkpoint import Linear
from transcribe.engine.model.config import ModelDimensions
from transcribe.engine.model.cross_attention_cache import CrossAttentionCache, Int8Cache, PaddedCache
from transcribe.engine.model.quantize import BFLOAT16, FLOAT16, FLOAT32, INT8

CHOICES = ("auto", FLOAT32, FLOAT16, BFLOAT16, INT8)
DECODER_ROWS = 8  # that the decoder's speed is measured with
AUDIO_LAYERS = 2  # whose audio is read in turn: what one layer reads of a small model stays in the processor's cache
REPEATS = 15


@dataclass(frozen=True)
class Precision:
    """Kinds of the two networks' matrices; `audio` is that of the encoded audio in the decoder's cache."""

    encoder: str
    decoder: str
    audio: str
    compute_dtype: str  # of everything that is no matrix

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
        on_processor = self.encoder == BFLOAT16 and self.compute_dtype == FLOAT32
        return on_processor and quantize.bfloat16_products() and bool(instructions())

    @property
    def compiled(self) -> bool:
        """Whether it needs the kernels that are compiled for the processor."""
        return INT8 in {self.encoder, self.decoder, self.audio} or self.by_head

    def attend(self, library: Library | None) -> Callable[[int, Tensor], Tensor]:
        """The encoder's attention in float, from the heads and [length, 3 · width] to [length, width]."""
        return functools.partial(network.attend_by_head, library) if self.by_head and library else network.attend_fused


def _milliseconds(candidates: Mapping[str, Callable[[Tensor], object]], rows: int, width: int) -> dict[str, float]:
    """The shortest time of each candidate on one thread: where anything else runs, threads wait for each other longer
    than they work. Taken in turns, so that what else the machine does hits all alike."""
    x = torch.randn(rows, width)
    times = dict.fromkeys(candidates, math.inf)
    before = torch.get_num_threads()
    threads.limit(1)
    for _ in range(REPEATS):
        for kind, work in candidates.items():
            begin = time.perf_counter()
            work(x)
            times[kind] = min(times[kind], time.perf_counter() - begin)
    threads.limit(before)
    return {kind: round(seconds * 1000, 4) for kind, seconds in times.items()}


def int8_fits(dims: ModelDimensions) -> bool:
    """Whether the processor has what int8 needs, and the kernels are made for such a model: for all published ones."""
    sizes = dims.width % BLOCK or dims.feed_forward % BLOCK or dims.width // dims.decoder_heads % CHANNELS
    return bool(instructions()) and not sizes and dims.activation == "gelu"


def _measure_audio(dims: ModelDimensions, load_library: Callable[[], Library]) -> dict[str, float]:
    """Milliseconds of the cross-attention of DECODER_ROWS tokens in AUDIO_LAYERS layers, by precision."""
    few = replace(dims, decoder_layers=AUDIO_LAYERS)
    weight, bias = torch.randn(2 * dims.width, dims.width), torch.zeros(2 * dims.width)
    cross = [quantize.float_linear(weight, bias)] * AUDIO_LAYERS
    candidates: dict[str, CrossAttentionCache] = {FLOAT32: PaddedCache(few, DECODER_ROWS, cross, torch.empty(0))}
    if quantize.bfloat16_products():
        candidates[BFLOAT16] = PaddedCache(few, DECODER_ROWS, cross, torch.empty(0, dtype=torch.bfloat16))
    if int8_fits(dims):
        matrix = gemm(load_library(), *quantized(weight), bias)
        candidates[INT8] = Int8Cache(few, DECODER_ROWS, [matrix] * AUDIO_LAYERS, load_library())
    encoded = torch.randn(dims.positions - 1, dims.width)  # a full window is rare
    for cache in candidates.values():
        for row in range(DECODER_ROWS):
            cache.store(row, encoded[None])
    attend = {kind: functools.partial(_attend, cache) for kind, cache in candidates.items()}
    return _milliseconds(attend, DECODER_ROWS, dims.width)


def _attend(cache: CrossAttentionCache, queries: Tensor) -> None:
    for layer in range(AUDIO_LAYERS):
        cache.attend(layer, slice(0, len(queries)), queries[:, None])


def measure(dims: ModelDimensions, load_library: Callable[[], Library]) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind that suits processor and model: {"encoder": {kind: ms}}.

    For "encoder" and "decoder" they are those of one matrix of the model, for "audio" those of the encoded audio in the
    decoder's cache.
    """
    weight = torch.randn(4 * dims.width, dims.width)
    rows = {"encoder": dims.positions, "decoder": DECODER_ROWS}
    result: dict[str, dict[str, float]] = {}
    for side, count in rows.items():
        candidates: dict[str, Linear] = {FLOAT32: quantize.float_linear(weight, None)}
        if quantize.bfloat16_products():
            candidates[BFLOAT16] = quantize.float_linear(weight.bfloat16(), None)
        if int8_fits(dims):
            make = gemv if side == "decoder" else gemm
            candidates[INT8] = make(load_library(), *quantized(weight), None)
        result[side] = _milliseconds(candidates, count, dims.width)
    return {**result, "audio": _measure_audio(dims, load_library)}


def fastest(measured: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The best kind for each side of what `measure` found."""
    return {side: min(times, key=lambda kind: times[kind]) for side, times in measured.items()}


def of(dtype: str, device: str, best: Mapping[str, str], *, int8: bool = True) -> Precision:
    """The precision for the wanted `dtype`. Raises EngineError for what device or model cannot do.

    `best` are the kinds that `fastest` names, for "auto" on a processor; `int8` is whether `int8_fits`.
    """
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
    if dtype == INT8 and not int8:
        raise EngineError(
            "int8 needs AVX2 with FMA or a 64-bit ARM, and a model of Whisper's own sizes: set dtype to auto or float32"
        )
    if dtype == INT8:
        return Precision(INT8, INT8, INT8, FLOAT32)
    return Precision(BFLOAT16, BFLOAT16, BFLOAT16, FLOAT32)
