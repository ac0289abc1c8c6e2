"""Reads a Whisper model in CTranslate2's binary form and gives its weights transformers' names.

The form (https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/specs/model_spec.py, all
little-endian): u32 version; the spec's name; u32 revision; u32 count; per variable its name, u8 rank, u32
dimensions, u8 dtype, u32 bytes, data; u32 count of aliases, each a pair of names. A name is a u16 length and a
NUL-terminated string. Self-attention stacks q, k, v in `linear_0`; cross-attention keeps q in `linear_0` and
stacks k, v in `linear_1`.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.generic]]

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
SUPPORTED_VERSION = 6

LAYER_NORM = {"gamma": "weight", "beta": "bias"}
PLAIN = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
    "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
    "decoder/embeddings/weight": "model.decoder.embed_tokens.weight",
}
BLOCKS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_2": "encoder_attn.out_proj",
}
STACKED = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}


@dataclass
class _Reader:
    data: bytes
    position: int = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.data, self.position)
        self.position += struct.calcsize("<" + kind)
        return int(value)

    def take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise ValueError("the model file ends in the middle of a value")
        return self.data[start : self.position]

    def name(self) -> str:
        return self.take(self.number("H")).rstrip(b"\0").decode()


def read(data: bytes) -> Weights:
    """Every variable of a CTranslate2 model by its own name. ValueError: another version, or truncated."""
    reader = _Reader(data)
    version = reader.number("I")
    if version != SUPPORTED_VERSION:
        raise ValueError(f"CTranslate2 format {version}: only {SUPPORTED_VERSION} is known here")
    reader.name()
    reader.number("I")  # revision of the spec
    variables: Weights = {}
    for _ in range(reader.number("I")):
        name = reader.name()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        dtype = DTYPES[reader.number("B")]
        variables[name] = np.frombuffer(reader.take(reader.number("I")), dtype).reshape(shape)
    return variables


def _layer(prefix: str, part: str, value: NDArray[np.generic]) -> Weights:
    block, leaf = part.rsplit("/", 1)
    leaf = LAYER_NORM.get(leaf, leaf)
    if block in BLOCKS:
        return {f"{prefix}.{BLOCKS[block]}.{leaf}": value}
    targets = STACKED[block]
    pieces = np.split(value, len(targets))
    # Whisper's key projection has no bias; CTranslate2 fills that third with zeros.
    kept = [(t, p) for t, p in zip(targets, pieces, strict=True) if not (leaf == "bias" and t.endswith("k_proj"))]
    return {f"{prefix}.{target}.{leaf}": np.ascontiguousarray(piece) for target, piece in kept}


def whisper_weights(variables: Weights) -> Weights:
    """The float16 weights under transformers' names (`model.encoder...`, `model.decoder...`)."""
    weights: Weights = {}
    for name, value in variables.items():
        if value.ndim == 0:
            continue  # a setting, not a weight
        side, _, rest = name.partition("/")
        if rest.startswith("layer_") and rest[6].isdigit():
            layer, _, part = rest.partition("/")
            weights |= _layer(f"model.{side}.layers.{layer.removeprefix('layer_')}", part, value)
        elif name in PLAIN:
            weights[PLAIN[name]] = value
        else:
            block, leaf = name.rsplit("/", 1)
            weights[f"{PLAIN[block]}.{LAYER_NORM.get(leaf, leaf)}"] = value
    return {name: value.astype(np.float16) for name, value in weights.items()}
