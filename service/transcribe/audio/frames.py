"""Streams of bare frames (MPEG, ADTS, LATM, AC-3, DTS, MLP): where the first whole one is, and whether the last one is.

Such a file has no header that promises anything, so that what was cut off at either end shows in its frames alone.
"""

import mmap
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from transcribe.audio import mp3

EDGE_BYTES = 1 << 18  # before the end, that are looked at
LARGEST = 1 << 14  # bytes of a frame: further from the beginning is no first one
MOST = 1 << 20  # frames that are looked at: the file is not trusted
MLP_SYNC, MLP_APART = b"\xf8\x72\x6f", 130  # what some of its frames have, and how many lie between at most
ENOUGH = 12  # frames that must follow each other: more than a container keeps side by side
HEAD_BYTES = 16
SYNC = re.compile(
    rb"\xff[\xe0-\xff]|\x56[\xe0-\xff]|\x0b\x77|\x7f\xfe\x80\x01|(?=....\xf8\x72\x6f[\xba\xbb])", re.DOTALL
)
AC3_RATES = (48_000, 44_100, 32_000)
AC3_KILOBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
ID3V1, APE = (b"TAG", 128), (b"APETAGEX", 32)  # what tags behind the sound begin with, and their size or their footer's


def _mpeg(head: bytes) -> int:
    frame = mp3.parsed(head[:4])
    return frame.size if frame else 0


def _adts(head: bytes) -> int:
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else 0


def _latm(head: bytes) -> int:
    return ((head[1] & 0x1F) << 8 | head[2]) + 3 if head[0] == 0x56 and head[1] & 0xE0 == 0xE0 else 0


def _ac3(head: bytes) -> int:
    if head[:2] != b"\x0b\x77":
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return ((head[2] & 7) << 8 | head[3]) * 2 + 2
    rate, size = head[4] >> 6, head[4] & 0x3F
    if rate == 3 or size >= 2 * len(AC3_KILOBITS):
        return 0
    words = AC3_KILOBITS[size // 2] * 96_000 // AC3_RATES[rate]
    return 2 * (words + (size % 2 if AC3_RATES[rate] == 44_100 else 0))


def _dts(head: bytes) -> int:
    return ((head[5] & 3) << 12 | head[6] << 4 | head[7] >> 4) + 1 if head[:4] == b"\x7f\xfe\x80\x01" else 0


def _mlp(head: bytes) -> int:
    """Only some frames can be told by themselves; all have their size."""
    return ((head[0] & 0xF) << 8 | head[1]) * 2


SIZES: tuple[Callable[[bytes], int], ...] = (_mpeg, _adts, _latm, _ac3, _dts, _mlp)


def begin(content: mmap.mmap, at: int) -> bool:
    """Whether frames that follow each other begin there."""
    return _kind(content, at) is not None


def end(content: mmap.mmap, at: int) -> int:
    """Where the frames of one codec that begin there end; 0 if none begin, or too many to be counted."""
    kind = _kind(content, at)
    number, last = max(enumerate(islice(_chain(content, at, kind), MOST), 1)) if kind else (0, 0)
    return last if number < MOST else 0


def alike(content: mmap.mmap, one: int, other: int) -> bool:
    """Whether frames of the same codec begin at both places."""
    return _kind(content, one) is _kind(content, other) is not None


def before(path: Path) -> int:
    """How many bytes come before the first frame of a stream that begins within one, or behind something unknown; 0 for
    every other file. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        tagged = mp3.behind_tags(file, len(content))
        if begin(content, tagged):
            return 0
        return next((place for place in _syncs(content, tagged, tagged + LARGEST) if begin(content, place)), 0)


def loss(path: Path, before: int) -> str:
    """What such a stream lacks, as half a sentence; '' for a whole one and for every other file. `before` bytes come
    before the first frame. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        tagged = mp3.behind_tags(file, len(content))
        kind = _kind(content, max(before, tagged))
        if kind is None:
            return ""
        if before > tagged and content[tagged:before].strip(b"\0"):
            return "its beginning is missing"
        end = _without_tags(content)
        places = (
            at for at in _syncs(content, max(tagged, before, end - EDGE_BYTES), end) if _kind(content, at) is kind
        )
        last = next((list(_chain(content, place, kind))[-1] for place in places), end)
    return "its end is missing" if last > end else ""


def _syncs(content: mmap.mmap, begin: int, end: int) -> Iterator[int]:
    """Where frames may begin."""
    return (begin + match.start() for match in SYNC.finditer(content[begin:end]))


def _kind(content: mmap.mmap, at: int) -> Callable[[bytes], int] | None:
    """By what the sizes of frames are found that follow each other from there on."""
    for kind in SIZES:
        if kind is _mlp:
            return kind if _mlp_begins(content, at) else None
        if len(list(islice(_chain(content, at, kind), ENOUGH))) == ENOUGH:
            return kind
    return None


def _mlp_begins(content: mmap.mmap, at: int) -> bool:
    """Whether a frame of MLP that can be told by itself begins there, and another one behind it."""
    if content[at + 4 : at + 7] != MLP_SYNC:
        return False
    return any(content[end + 4 : end + 7] == MLP_SYNC for end in islice(_chain(content, at, _mlp), MLP_APART))


def _chain(content: mmap.mmap, at: int, kind: Callable[[bytes], int]) -> Iterator[int]:
    """Where the frames from there on end; of the last one perhaps behind the file."""
    while (head := content[at : at + HEAD_BYTES]) and (size := kind(head.ljust(HEAD_BYTES, b"\0"))):
        at += size
        yield at


def _without_tags(content: mmap.mmap) -> int:
    """Where the sound ends, before the tags."""
    end = len(content)
    name, size = ID3V1
    if content[end - size : end - size + len(name)] == name:
        end -= size
    name, size = APE
    if content[end - size : end - size + len(name)] == name:
        end -= int.from_bytes(content[end - size + 12 : end - size + 16], "little") + size
    return max(0, end)
