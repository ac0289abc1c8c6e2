"""What unit tests share."""

from pathlib import Path

import pytest
from transcribe.engine.cpu import library
from transcribe.engine.cpu.library import Library

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "kernels"


@pytest.fixture(scope="session")
def kernels() -> Library:
    """The processor's, compiled once for all runs."""
    if not library.instructions():
        pytest.skip("this processor has neither AVX2 nor VNNI, for which the kernels are")
    return library.load(CACHE)
