"""A loaded model: networks, tokens and text, on a device in a precision."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import library
from transcribe.engine.cpu.int8 import Matrix
from transcribe.engine.cpu.library import Library
from transcribe.engine.model import builder, precision, quantize, weight_cache
from transcribe.engine.model.checkpoint import Checkpoint, Weights, fuse
from transcribe.engine.model.config import ModelDimensions, SpecialTokens, dimensions_of, special_tokens_of
from transcribe.engine.model.cross_attention_cache import CrossAttentionCache, Int8Cache, PaddedCache
from transcribe.engine.model.network import Decoder, Encoder
from transcribe.engine.model.precision import Precision
from transcribe.engine.model.tokenizer import WhisperTokenizer, load_tokenizer, special_names


@dataclass(frozen=True)
class Model:
    """What the scheduler needs of a model."""

    dims: ModelDimensions
    special: SpecialTokens
    tokenizer: WhisperTokenizer
    encoder: Encoder
    decoder: Decoder
    library: Library | None  # kernels for the processor, where the precision needs them, and for words beside a GPU
    device: str
    precision: Precision
    audio_cache: Callable[[int], CrossAttentionCache] | None = None  # for so many rows, in place of the usual one

    @property
    def compute_dtype(self) -> torch.dtype:
        return quantize.DTYPES[self.precision.compute_dtype]

    def cross_attention_cache(self, rows: int) -> CrossAttentionCache:
        """Where the decoder keeps the encoded audio of `rows` chunks."""
        cross = self.decoder.cross_kv
        if self.audio_cache is not None:
            return self.audio_cache(rows)
        if self.precision.audio == quantize.INT8 and self.library is not None:
            matrices = [one for one in cross if isinstance(one, Matrix)]
            assert len(matrices) == len(cross)
            return Int8Cache(self.dims, rows, matrices, self.library)
        like = self.decoder.positions.to(quantize.DTYPES[self.precision.audio])
        return PaddedCache(self.dims, rows, cross, like)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EngineError(f"{path} is missing: run advanced_cache.py") from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read ({error}): run advanced_cache.py") from error
    return content


def _weights(
    model_dir: Path, dims: ModelDimensions, wanted: tuple[str, str], folder: Path | None, *, store: bool
) -> tuple[Weights, dict[str, Any]]:
    """Weights for the wanted device and dtype, from the cache or converted now, and what was chosen."""
    device, dtype = wanted
    key = {"model": weight_cache.fingerprint(model_dir), "device": device, "dtype": dtype}
    if device == "cpu":
        key["instructions"] = quantize.native_products()
    facts = weight_cache.read(folder, key)
    if facts is not None and folder is not None and (kept := weight_cache.weights(folder)) is not None:
        return kept, {**facts, "prepared": True}
    load_library = functools.partial(library.load, folder, store=store)
    measured = precision.measure(dims, load_library) if (device, dtype) == ("cpu", "auto") else {}
    int8 = precision.int8_fits(dims)
    chosen = precision.of(dtype, device, precision.fastest(measured), int8=int8)
    tensors = quantize.convert(fuse(Checkpoint(model_dir), dims), chosen.kinds, quantize.DTYPES[chosen.compute_dtype])
    facts = {"key": key, "precision": vars(chosen), "measured_ms": measured}
    stored = weight_cache.write(folder if store else None, facts, tensors)
    if stored and folder is not None and (kept := weight_cache.weights(folder)) is not None:
        tensors = kept  # mapped from the file: the converted copy can go
    return tensors, {**facts, "prepared": stored}


def load(
    model_dir: Path, *, device: str, dtype: str, folder: Path | None = None, store: bool = True
) -> tuple[Model, dict[str, Any]]:
    """Loads a transformers directory; `folder` has its prepared weights, and keeps them if `store` says so. Raises
    EngineError, one line.

    Returns the model and what was chosen: "precision", "measured_ms" of each kind, "prepared".
    """
    if not model_dir.is_dir():
        raise EngineError(f"there is no model in {model_dir}: run advanced_cache.py")
    config = _read(model_dir / "config.json")
    generation_file = model_dir / "generation_config.json"
    generation = _read(generation_file) if generation_file.exists() else {}
    dims = dimensions_of(config)
    fast = load_tokenizer(model_dir)
    special = special_tokens_of(config, generation, special_names(fast))
    weights, facts = _weights(model_dir, dims, (device, dtype), folder, store=store)
    chosen = Precision(**facts["precision"])
    weights = {name: tensor.to(device) for name, tensor in weights.items()}
    beside_gpu = device == "cuda" and special.word_times(dims) and bool(library.instructions())
    compiled = library.load(folder, store=store) if chosen.compiled or beside_gpu else None
    model = Model(
        dims=dims,
        special=special,
        tokenizer=WhisperTokenizer(fast, special),
        encoder=builder.encoder(weights, dims, chosen.attend(compiled), compiled),
        decoder=builder.decoder(weights, dims, compiled),
        library=compiled,
        device=device,
        precision=chosen,
    )
    return model, facts
