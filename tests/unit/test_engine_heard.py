"""The encoded audio in the decoder's cache: int8 beside float32."""

import pytest
import torch
from transcribe.engine.heard import Compact, Heard, Padded
from transcribe.engine.spec import Shape

SHAPE = Shape(
    width=128,
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


@pytest.fixture
def pair() -> tuple[Heard, Heard]:
    """Both kinds after the same: three rows of different lengths, the last moved to the first's place."""
    torch.manual_seed(0)
    kinds = Padded(SHAPE, 3, torch.float32, torch.device("cpu")), Compact(SHAPE, 3)
    for row, length in enumerate((100, 37, 64)):  # only the last is whole blocks of the int8 product
        keys_values = torch.randn(length, 2 * SHAPE.width)
        for heard in kinds:
            heard.put(1, row, keys_values)
    for heard in kinds:
        heard.move(2, 0)
    return kinds


def test_audio_in_int8_is_heard_as_in_float32(pair: tuple[Heard, Heard]) -> None:
    query = torch.randn(2, 3, SHAPE.width) / 8
    expected, found = (heard.attend(1, slice(0, 2), query)[0] for heard in pair)
    assert (found - expected).norm() / expected.norm() < 0.03


def test_the_weights_of_a_row_are_told_and_nothing_is_heard_behind_its_end(pair: tuple[Heard, Heard]) -> None:
    query = torch.randn(1, 3, SHAPE.width) / 8
    expected, found = (heard.attend(1, slice(1, 2), query)[1] for heard in pair)
    torch.testing.assert_close(found[..., :37].float(), expected, atol=0.005, rtol=0.05)
    assert not found[..., 37:].any()


def test_a_row_does_not_depend_on_who_shares_the_batch(pair: tuple[Heard, Heard]) -> None:
    query = torch.randn(2, 1, SHAPE.width)
    together = pair[1].attend(1, slice(0, 2), query)[0]
    torch.testing.assert_close(pair[1].attend(1, slice(1, 2), query[1:])[0], together[1:], atol=0, rtol=0)
