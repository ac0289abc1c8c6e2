"""Whether behind a recording lies another one that ffmpeg does not come to, as in files that were joined end to end."""

import mmap
from pathlib import Path

from transcribe.audio import wav

# What such files begin with, and how many of the first bytes are the same in another one of the kind.
HEADS = (
    (b"caff", 20),
    (b"FLV", 9),
    (b"TTA1", 14),
    (b"Creative Voice File\x1a", 26),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", 16),  # W64
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", 16),  # ASF
)
BRAND, SMALLEST = 12, 8  # bytes of an MP4's first box, as far as they count here, and of its smallest


def unheard(path: Path) -> bool:
    """Whether another recording follows that is not heard. Raises OSError."""
    if wav.followed(path):
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[4:8] == b"ftyp":
            return _second_film(content)
        if content[:4] == b"FORM":
            end = int.from_bytes(content[4:8], "big") + 8
            return content[end : end + 4] == b"FORM"
        same = next((count for start, count in HEADS if content[: len(start)] == start), 0)
        return same > 0 and content.find(content[:same], same) > 0


def _second_film(content: mmap.mmap) -> bool:
    """Whether an MP4 file begins anew behind its samples; the pieces of a live stream may, and are heard."""
    at, names = 0, set[bytes]()
    while at + BRAND <= len(content):
        size, name = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if name == b"ftyp" and b"mdat" in names:
            return b"moof" not in names or b"mfra" in names
        names.add(name)
        size = int.from_bytes(content[at + 8 : at + 16], "big") if size == 1 else size
        if size < SMALLEST:
            return False
        at += size
    return False
