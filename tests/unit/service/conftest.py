"""What unit tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.worker_fixture import ServiceFixture, service_fixture
from transcribe.engine.cpu import library
from transcribe.engine.cpu.library import Library

CACHE = Path(os.environ.get("KERNELS") or Path(__file__).resolve().parents[3] / ".cache" / "kernels")


@pytest.fixture(scope="session")
def kernels() -> Library:
    """The processor's, compiled once for all runs."""
    if not library.instructions():
        pytest.skip("the kernels are not made for this processor")
    return library.load(CACHE)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceFixture]:
    found = service_fixture(tmp_path, batch__max_chunks=4)
    yield found
    found.store.close()
