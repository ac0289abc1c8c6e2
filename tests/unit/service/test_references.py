"""Data URLs are decoded in the pieces in which they come."""

import base64
from pathlib import Path

import pytest
from transcribe.api.errors import ApiError
from transcribe.api.references import ReferencePart, too_large
from transcribe.api.spool import Spool
from werkzeug.datastructures import MultiDict

SOUND = bytes(range(256)) * 3
HEAD = b"data:audio/wav;base64,"
SIZES = (1, 3, 4, 64, 10_000)


def received(folder: Path, sent: bytes, size: int) -> bytes:
    """What is in the file after the bytes came in pieces of that size."""
    with Spool(folder / "reference", limit=10_000, too_large=too_large()) as spool:
        part, fields = ReferencePart(lambda: spool, is_file=False), MultiDict[str, str]()
        for start in range(0, len(sent), size):
            part.write(sent[start : start + size])
        part.end(fields, MultiDict())
    assert list(fields) == ["known_speaker_references"]
    return spool.path.read_bytes()


@pytest.mark.parametrize("size", SIZES)
def test_pieces_of_any_length(tmp_path: Path, size: int) -> None:
    assert received(tmp_path, HEAD + base64.b64encode(SOUND), size) == SOUND


@pytest.mark.parametrize("size", SIZES)
def test_padding_in_the_middle_is_refused_wherever_the_pieces_end(tmp_path: Path, size: int) -> None:
    with pytest.raises(ApiError, match="base64"):
        received(tmp_path, HEAD + b"UklG" * 100 + b"Ug==" + b"UklG" * 100, size)
