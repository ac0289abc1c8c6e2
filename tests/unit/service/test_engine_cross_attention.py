"""The encoded audio in the decoder's cache: keys and values in int8, beside those in float32."""

import gc

import pytest
import torch
from torch import Tensor
from transcribe.engine.cpu import int8
from transcribe.engine.cpu.library import Library
from transcribe.engine.model.config import ModelDimensions
from transcribe.engine.model.cross_attention_cache import CrossAttentionCache, Int8Cache, PaddedCache, QuantizedAudio
from transcribe.engine.model.quantize import float_linear

Pair = tuple[CrossAttentionCache, CrossAttentionCache]
DIMS = ModelDimensions(
    width=128,
    feed_forward=512,
    encoder_layers=1,
    encoder_heads=2,
    decoder_layers=2,
    decoder_heads=2,
    vocabulary=8,
    bands=8,
    positions=100,
    context=8,
    activation="gelu",
    median_width=7,
)


def crosses() -> list[tuple[Tensor, Tensor]]:
    """Each layer's matrix of keys and values, and their bias: keys have none."""
    width = DIMS.width
    bias = torch.cat([torch.zeros(width), torch.randn(width)])
    return [(torch.randn(2 * width, width) / width**0.5, bias) for _ in range(DIMS.decoder_layers)]


def int8_cache(kernels: Library, rows: int, cross: list[tuple[Tensor, Tensor]]) -> Int8Cache:
    matrices = [int8.gemm(kernels, *int8.quantized(weight), bias) for weight, bias in cross]
    return Int8Cache(DIMS, rows, matrices, kernels)


@pytest.fixture
def pair(kernels: Library) -> Pair:
    """Both kinds after the same: three rows of different lengths, the last moved to the first's place."""
    torch.manual_seed(0)
    cross = crosses()
    plain = [float_linear(weight, bias) for weight, bias in cross]
    kinds = PaddedCache(DIMS, 3, plain, torch.empty(0)), int8_cache(kernels, 3, cross)
    for row, length in enumerate((100, 37, 64)):
        encoded = torch.randn(length, DIMS.width)
        for cache in kinds:
            cache.store(row, encoded[None])
    for cache in kinds:
        cache.move(2, 0)
    return kinds


def test_audio_in_int8_is_forgotten(kernels: Library) -> None:
    cache, encoded = int8_cache(kernels, 3, crosses()), torch.randn(3, 100, DIMS.width)

    def kept() -> int:
        gc.collect()
        return sum(type(one) is QuantizedAudio for one in gc.get_objects())

    before = kept()
    cache.store(0, encoded)
    assert kept() == before + 3
    cache.clear()
    assert kept() == before
    cache.store(0, encoded[:1])
    assert torch.isfinite(cache.attend(0, slice(0, 1), torch.randn(1, 1, DIMS.width))[0]).all()


def test_audio_in_int8_is_heard_as_in_float32(pair: Pair) -> None:
    query = torch.randn(2, 3, DIMS.width) / 4
    expected, found = (cache.attend(1, slice(0, 2), query)[0] for cache in pair)
    assert (found - expected).norm() / expected.norm() < 0.02


def test_many_faint_positions_count_beside_a_loud_one(kernels: Library) -> None:
    """One position takes half of the weight and a thousand others share the rest: 8 bits would lose them."""
    torch.manual_seed(0)
    width, faint = DIMS.width, 1000
    cross = [(torch.cat([torch.eye(width), torch.eye(width)]), torch.zeros(2 * width))]
    encoded = torch.cat([torch.eye(width)[:1], torch.eye(width)[1:2].expand(faint, -1)])
    cache = int8_cache(kernels, 1, cross)
    cache.store(0, encoded[None])
    query = torch.zeros(1, 1, width)
    query[..., 0] = float(torch.tensor(faint).log())
    mixed, _ = cache.attend(0, slice(0, 1), query)
    assert mixed[0, 0, :2].tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_the_weights_of_a_row_are_told_and_nothing_is_heard_behind_its_end(
    pair: Pair,
) -> None:
    query = torch.randn(1, 3, DIMS.width) / 4
    expected, found = (cache.attend(1, slice(1, 2), query)[1][..., :37] for cache in pair)
    torch.testing.assert_close(found, expected, atol=0.005, rtol=0.05)
    beside, _ = pair[1].attend(1, slice(0, 3), query.repeat(3, 1, 1))
    torch.testing.assert_close(beside[1:2], pair[1].attend(1, slice(1, 2), query)[0], atol=1e-6, rtol=1e-5)


def test_a_row_does_not_depend_on_who_shares_the_batch(pair: Pair) -> None:
    query = torch.randn(2, 1, DIMS.width)
    together = pair[1].attend(1, slice(0, 2), query)[0]
    torch.testing.assert_close(pair[1].attend(1, slice(1, 2), query[1:])[0], together[1:], atol=1e-6, rtol=1e-5)
