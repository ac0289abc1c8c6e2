"""What several tests of the machine's own programs need."""

from collections.abc import Iterator

import pytest
from support import upload_server
from support.upload_server import UploadServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadServer]:
    """A server in the place of S3 or of the service."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with upload_server.serving() as found:
        yield found
