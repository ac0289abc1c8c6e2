"""The probability that a word is right."""

from itertools import pairwise

import pytest
from transcribe.confidence import probability_right


def test_surer_words_in_surer_windows_are_likelier_right() -> None:
    chances = [0.0, 0.01, 0.3, 0.9, 1.0]
    for window in (-1000.0, -1.0, -0.2, 0.0, 0.1):
        found = [probability_right(word, window) for word in chances]
        assert all(0.0 < low <= high < 1.0 for low, high in pairwise(found))
        assert found[0] < found[-1]
    for word in chances:
        found = [probability_right(word, window) for window in (-1000.0, -2.0, -0.5, 0.0)]
        assert all(low < high for low, high in pairwise(found))


@pytest.mark.parametrize(
    ("word", "window", "expected"), [(0.99, -0.1, 0.994), (0.5, -0.25, 0.814), (0.5, -1.0, 0.235), (0.1, -0.3, 0.453)]
)
def test_its_figures(word: float, window: float, expected: float) -> None:
    assert probability_right(word, window) == pytest.approx(expected, abs=0.002)
