"""What unit tests share."""

from pathlib import Path

import pytest
from transcribe.engine.cpu import library
from transcribe.engine.cpu.library import Library

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kernels"


@pytest.fixture(scope="session")
def kernels() -> Library:
    """The processor's, compiled once for all runs."""
    return library.load(CACHE)
