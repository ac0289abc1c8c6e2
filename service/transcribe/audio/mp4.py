"""Whether an MP4's sound begins late by its edit lists: they may begin with a piece of nothing."""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
EDITS = {
    0: struct.Struct(">Ll4x"),
    1: struct.Struct(">Qq4x"),
}  # by version: how long a piece lasts, and where it begins
NOTHING = -1


def begins_late(path: Path, begin: int = 0) -> bool:
    """Whether a track of the recording at this byte begins with a piece of nothing. One that is longer than what
    follows is no such thing, but the clock of a whole of which the file is a later part. Raises OSError."""
    with path.open("rb") as file:
        file.seek(begin)
        if file.read(8)[4:] not in FIRST_BOXES:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            lists = _inner(content, (b"moov", b"trak", b"edts", b"elst"), begin, len(content))
            return any(_late(content[at:end]) for at, end in lists)


def _late(edits: bytes) -> bool:
    form = EDITS.get(edits[0]) if len(edits) > 8 else None
    if form is None or len(edits) < 8 + 2 * form.size:
        return False
    (empty, begin), (rest, _) = form.unpack_from(edits, 8), form.unpack_from(edits, 8 + form.size)
    return bool(begin == NOTHING and 0 < empty <= rest)


def _inner(content: mmap.mmap, names: tuple[bytes, ...], at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the contents of all boxes of the last name are, that lie in one of the first, and so on."""
    while names and at + 8 <= end:
        size, head = int.from_bytes(content[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        if size < head:  # 0 is to the end
            return
        if content[at + 4 : at + 8] == names[0]:
            inside = at + head, min(at + size, end)
            yield from _inner(content, names[1:], *inside) if names[1:] else (inside,)
        at += size
