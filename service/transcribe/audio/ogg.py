"""Whether an Ogg file lacks pages: they are numbered, and the last one says that it is. ffmpeg tells of neither."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

HEAD = struct.Struct("<4sxB8xLL4xB")  # magic, flags, stream, number, segments
FIRST, LAST = 2, 4  # flags


@dataclass(frozen=True)
class Page:
    """A page's flags, its stream, and its number there."""

    flags: int
    stream: int
    number: int


def loss(path: Path) -> str:
    """What an Ogg file lacks, as half a sentence; '' for a whole one and for every other file. Raises OSError."""
    numbers, ended = dict[int, int](), False
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return ""
        for page in _pages(file, path.stat().st_size):
            before = numbers.get(page.stream)
            if before is not None and not page.flags & FIRST and page.number != before + 1:
                return "some of its sound is missing"
            numbers[page.stream], ended = page.number, bool(page.flags & LAST)
    return "" if ended else "its end is missing"


def _pages(file: BinaryIO, size: int) -> Iterator[Page]:
    """The whole pages in order, until something else is found."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(HEAD.size)
        if len(head) < HEAD.size or not head.startswith(b"OggS"):
            return
        _, flags, stream, number, segments = HEAD.unpack(head)
        at += HEAD.size + segments + sum(file.read(segments))
        if at > size:
            return
        yield Page(flags, stream, number)
