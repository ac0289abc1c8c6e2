"""Both networks with int8 matrices beside the same in float32, and the models that they are for."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import int8
from transcribe.engine.cpu.library import Library
from transcribe.engine.model import builder, precision, quantize
from transcribe.engine.model.checkpoint import fuse
from transcribe.engine.model.config import dimensions_of
from transcribe.engine.model.cross_attention_cache import CrossAttentionCache, Int8Cache, PaddedCache
from transcribe.engine.model.network import Cache, Decoder, FloatStream, Layer, Norm, Stack, attend_fused
from transcribe.engine.model.network_int8 import Int8Stream, attend_window
from transcribe.engine.model.quantize import float_linear


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("bfloat16", [True, False])
def test_layers_in_int8_say_what_layers_in_float32_do(kernels: Library, bfloat16: bool) -> None:
    width, heads, length = 128, 2, 75
    norms = [Norm(torch.rand(width) + 0.5, torch.randn(width) / 4) for _ in range(3)]
    sizes = {"qkv": (3 * width, width), "out": (width, width), "fc1": (4 * width, width), "fc2": (width, 4 * width)}
    matrices = {name: (torch.randn(size) / size[1] ** 0.5, torch.randn(size[0]) / 4) for name, size in sizes.items()}
    matrices["qkv"][0][:width] /= 8  # the queries
    plain = {name: float_linear(*matrix) for name, matrix in matrices.items()}
    narrow = {
        name: int8.gemm(kernels, *int8.quantized(weight), bias).times for name, (weight, bias) in matrices.items()
    }
    exact, rounded = (
        Stack((Layer(norm1=norms[0], norm_ffn=norms[1], cross=None, **parts),) * 2, norms[2], stream)
        for parts, stream in ((plain, partial(FloatStream, F.gelu)), (narrow, partial(Int8Stream, kernels)))
    )
    x = torch.randn(length, width)
    expected = exact(x, lambda _, qkv: attend_fused(heads, qkv))
    found = rounded(x.clone(), lambda _, qkv: attend_window(kernels, heads, qkv, bfloat16=bfloat16))
    assert (found - expected).norm() / expected.norm() < 0.03


WHISPER = {
    "model_type": "whisper",
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": 200,
    "num_mel_bins": 8,
    "max_source_positions": 60,
    "max_target_positions": 40,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("change", "fits"),
    [({}, True), ({"d_model": 72}, False), ({"decoder_ffn_dim": 100}, False), ({"activation_function": "relu"}, False)],
)
def test_int8_is_for_models_of_whispers_own_sizes(kernels: Library, change: dict[str, object], fits: bool) -> None:
    dims = dimensions_of({**WHISPER, **change})
    assert precision.int8_fits(dims) is fits
    assert ("int8" in precision.measure(dims, lambda: kernels)["decoder"]) is fits
    if not fits:
        with pytest.raises(EngineError, match="set dtype to auto"):
            precision.of("int8", "cpu", {}, int8=fits)


def decoders(kernels: Library, audio: str) -> tuple[tuple[Decoder, Cache], tuple[Decoder, Cache]]:
    """A random decoder in float32 and in int8, each with a cache of three rows of audio; the second's is in `audio`."""
    dims = dimensions_of(WHISPER)
    state = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER)).state_dict()
    found = []
    for kind, cross_kind in (("float32", "float32"), ("int8", audio)):
        weights = fuse({name: tensor.clone() * 4 for name, tensor in state.items()}, dims)
        kinds = {"encoder": kind, "decoder": kind, "cross": kind}
        decoder = builder.decoder(quantize.convert(weights, kinds, torch.float32), dims, kernels)
        dtype = getattr(torch, cross_kind, None)
        cross: CrossAttentionCache = PaddedCache(dims, 3, decoder.cross_kv, torch.empty(0, dtype=dtype))
        if cross_kind == "int8":
            matrices = [one for one in decoder.cross_kv if isinstance(one, int8.Matrix)]
            cross = Int8Cache(dims, 3, matrices, kernels)
        found.append((decoder, Cache(dims, 3, torch.empty(0, dtype=decoder.cache_dtype), cross)))
    for row, length in enumerate((60, 33, 47)):
        encoded = torch.randn(length, dims.width)
        for _, cache in found:
            cache.cross.store(row, encoded[None])
    return found[0], found[1]


@pytest.mark.parametrize("audio", ["int8", "bfloat16"])
def test_the_decoder_in_int8_says_what_it_does_in_float32(kernels: Library, audio: str) -> None:
    pair = decoders(kernels, audio)
    assert pair[1][0].library is kernels
    said = []
    for decoder, cache in pair:
        cache.reserve(6)
        first = decoder(cache, slice(1, 2), torch.tensor([[5, 6, 7, 8]]), torch.zeros(1, dtype=torch.int64))
        every = decoder(cache, slice(0, 3), torch.tensor([[9], [10], [11]]), torch.tensor([0, 4, 0]))
        weights: list[Tensor] = []
        decoder(cache, slice(1, 2), torch.tensor([[12]]), torch.tensor([5]), lambda _, heard: weights.append(heard))  # noqa: B023
        said.append((decoder.head(first[0]), decoder.head(every[:, 0]), torch.stack(weights)))
    for expected, found in zip(*said, strict=True):
        same = found[..., : expected.shape[-1]]  # weights of what is behind the audio follow
        assert (same - expected).norm() / expected.norm() < 0.05


def test_few_loud_channels_do_not_cost_the_choice_of_a_token_its_precision(kernels: Library) -> None:
    """Whisper's last norm has such channels. The head has learned to multiply them with little, and still embeds."""
    dims = dimensions_of(WHISPER)
    weights = dict(
        fuse(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER)).state_dict(), dims)
    )
    weights["decoder.norm.weight"][:2] *= 100
    weights["decoder.head.weight"][:, :2] /= 100
    kinds = ("encoder", "decoder", "cross")
    exact, rounded = (
        builder.decoder(quantize.convert(weights.items(), dict.fromkeys(kinds, kind), torch.float32), dims, library)
        for kind, library in (("float32", None), ("int8", kernels))
    )
    ids, states = torch.arange(dims.vocabulary), torch.randn(5, dims.width)
    embedded, expected = rounded.embed(ids), exact.embed(ids)
    assert (embedded - expected).norm() / expected.norm() < 0.01
    logits, wanted = (one.head(one.layers.norm(states)) for one in (rounded, exact))
    assert (logits - wanted).norm() / wanted.norm() < 0.02
