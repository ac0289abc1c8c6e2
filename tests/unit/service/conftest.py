"""What unit tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.worker_fixture import ServiceFixture, service_fixture
from transcribe.engine.cpu import library
from transcribe.engine.cpu.library import Library

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "kernels"


@pytest.fixture(scope="session")
def kernels() -> Library:
    """The processor's, compiled once for all runs."""
    if not library.instructions():
        pytest.skip("this processor has neither AVX2 nor VNNI, for which the kernels are")
    return library.load(CACHE)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceFixture]:
    found = service_fixture(tmp_path, batch__max_chunks=4)
    yield found
    found.store.close()
