"""A loaded model: networks, tokens and text, on a device in a precision."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import library
from transcribe.engine.cpu.int8 import Matrix
from transcribe.engine.cpu.library import Library
from transcribe.engine.decode.alignment import usable
from transcribe.engine.model import builder, precision, quantize, weight_cache
from transcribe.engine.model.checkpoint import Weights, fuse, load_state
from transcribe.engine.model.config import Shape, Special, shape_of, special_of
from transcribe.engine.model.cross_attention_cache import Heard, Padded
from transcribe.engine.model.network import Decoder, Encoder
from transcribe.engine.model.precision import Precision
from transcribe.engine.model.remembered import Remembered
from transcribe.engine.model.tokenizer import Text, load_tokenizer, special_names


@dataclass(frozen=True)
class Model:
    """What the runner needs of a model."""

    shape: Shape
    special: Special
    text: Text
    encoder: Encoder
    decoder: Decoder
    library: Library | None  # for the processor, where the precision needs it
    device: str
    precision: Precision

    @property
    def word_times(self) -> bool:
        """Whether the model names alignment heads that it has."""
        return usable(self.special.alignment_heads, self.shape.decoder_layers, self.shape.decoder_heads)

    @property
    def wide(self) -> torch.dtype:
        return quantize.DTYPES[self.precision.wide]

    def heard(self, rows: int) -> Heard:
        """Where the decoder keeps the encoded audio of `rows` chunks."""
        cross = self.decoder.crosses
        if self.precision.audio == quantize.INT8 and self.library is not None:
            narrow = [one for one in cross if isinstance(one, Matrix)]
            assert len(narrow) == len(cross)
            return Remembered(self.shape, rows, narrow, self.library)
        like = self.decoder.positions.to(quantize.DTYPES[self.precision.audio])
        return Padded(self.shape, rows, cross, like)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EngineError(f"{path} is missing: run advanced_cache.py") from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read ({error}): run advanced_cache.py") from error
    return content


def _weights(
    model_dir: Path, shape: Shape, wish: tuple[str, str], folder: Path | None
) -> tuple[Weights, dict[str, Any]]:
    """Weights as the wish (device, dtype) has them and what was chosen: as prepared, or prepared now."""
    device, dtype = wish
    key = {"model": weight_cache.fingerprint(model_dir), "device": device, "dtype": dtype}
    if device == "cpu":
        key["instructions"] = ", ".join(quantize.native_kinds())
    facts = weight_cache.read(folder, key)
    if facts is not None and folder is not None and (kept := weight_cache.weights(folder)) is not None:
        return kept, {**facts, "prepared": True}
    kernels = functools.partial(library.load, folder)
    measured = precision.measure(shape, kernels) if (device, dtype) == ("cpu", "auto") else {}
    narrow = precision.int8_fits(shape)
    chosen = precision.of(dtype, device, precision.fastest(measured), narrow=narrow)
    tensors = fuse(load_state(model_dir, torch.float32), shape)
    tensors = quantize.convert(tensors, chosen.kinds, quantize.DTYPES[chosen.wide])
    facts = {"key": key, "precision": vars(chosen), "measured_ms": measured}
    stored = weight_cache.write(folder, facts, tensors)
    if stored and folder is not None and (kept := weight_cache.weights(folder)) is not None:
        tensors = kept  # mapped from the file: the converted copy can go
    return tensors, {**facts, "prepared": stored}


def load(model_dir: Path, *, device: str, dtype: str, folder: Path | None = None) -> tuple[Model, dict[str, Any]]:
    """Loads a transformers directory; `folder` keeps its prepared weights. Raises EngineError, one line.

    Returns the model and what was chosen: "precision", "measured_ms" of each kind, "prepared".
    """
    if not model_dir.is_dir():
        raise EngineError(f"there is no model in {model_dir}: run advanced_cache.py")
    config = _read(model_dir / "config.json")
    generation_file = model_dir / "generation_config.json"
    generation = _read(generation_file) if generation_file.exists() else {}
    shape = shape_of(config)
    tokenizer = load_tokenizer(model_dir)
    special = special_of(config, generation, special_names(tokenizer))
    weights, facts = _weights(model_dir, shape, (device, dtype), folder)
    chosen = Precision(**facts["precision"])
    weights = {name: tensor.to(device) for name, tensor in weights.items()}
    compiled = library.load(folder) if chosen.compiled else None
    model = Model(
        shape=shape,
        special=special,
        text=Text(tokenizer, special),
        encoder=builder.encoder(weights, shape, chosen.attend(compiled), compiled),
        decoder=builder.decoder(weights, shape, compiled),
        library=compiled,
        device=device,
        precision=chosen,
    )
    return model, facts
