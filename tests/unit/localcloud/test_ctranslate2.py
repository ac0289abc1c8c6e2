"""CTranslate2's binary form, written here by hand, becomes transformers' weights."""

import struct

import numpy as np
import pytest
from localcloud.hub import ctranslate2
from localcloud.hub.models import commit_of, model_dir
from numpy.typing import NDArray

WIDTH = 4


def name(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def model(variables: dict[str, NDArray[np.generic]], *, version: int = 6) -> bytes:
    codes = {np.dtype(kind): code for code, kind in ctranslate2.DTYPES.items()}
    parts = [struct.pack("<I", version), name("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for variable, value in variables.items():
        parts.append(name(variable) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
        parts.append(struct.pack("<BI", codes[value.dtype], value.nbytes) + value.tobytes())
    return b"".join([*parts, struct.pack("<I", 0)])


def numbered(*shape: int) -> NDArray[np.generic]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_variables_come_back_as_written() -> None:
    written = {"encoder/conv1/weight": numbered(2, 3, 1), "encoder/num_heads": np.array(6, np.int16)}
    read = ctranslate2.read(model(written))
    assert {key: (value.dtype, value.tolist()) for key, value in read.items()} == {
        key: (value.dtype, value.tolist()) for key, value in written.items()
    }


def test_another_version_and_a_truncated_file_are_refused() -> None:
    whole = model({"encoder/conv1/weight": numbered(2, 3, 1)})
    with pytest.raises(ValueError, match="format 5"):
        ctranslate2.read(model({}, version=5))
    with pytest.raises(ValueError, match="ends in the middle"):
        ctranslate2.read(whole[:-8])


def test_stacked_projections_are_taken_apart_in_order() -> None:
    stacked = numbered(3 * WIDTH, WIDTH)
    weights = ctranslate2.whisper_weights(
        {
            "decoder/layer_0/self_attention/linear_0/weight": stacked,
            "decoder/layer_0/self_attention/linear_0/bias": numbered(3 * WIDTH),
            "decoder/layer_0/attention/linear_1/weight": stacked[: 2 * WIDTH],
            "decoder/layer_0/ffn/layer_norm/gamma": numbered(WIDTH),
        }
    )
    layer = "model.decoder.layers.0"
    assert sorted(weights) == [
        f"{layer}.encoder_attn.k_proj.weight",
        f"{layer}.encoder_attn.v_proj.weight",
        f"{layer}.final_layer_norm.weight",
        f"{layer}.self_attn.k_proj.weight",
        f"{layer}.self_attn.q_proj.bias",
        f"{layer}.self_attn.q_proj.weight",
        f"{layer}.self_attn.v_proj.bias",
        f"{layer}.self_attn.v_proj.weight",
    ]
    assert weights[f"{layer}.self_attn.v_proj.weight"].tolist() == stacked[2 * WIDTH :].tolist()
    assert weights[f"{layer}.encoder_attn.v_proj.weight"].tolist() == stacked[WIDTH : 2 * WIDTH].tolist()
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float16)}


@pytest.mark.model
@pytest.mark.parametrize(
    ("model_name", "commit"),
    [
        ("whisper-base", "0c1763ac9028578d4b07b4d06c89a640392783ee"),
        ("whisper-tiny.en", "b3432093389c6b91125a5904bf9f1d8598aebc79"),
    ],
)
def test_a_conversion_gives_the_same_bytes_everywhere(model_name: str, commit: str) -> None:
    assert commit_of(model_dir(model_name)) == commit
