"""What an MP3 file's frames say of themselves: whether they are any, and how long the encoder says it is.

ffmpeg takes the length from the file's size when the encoder's word differs, so a file that was cut off looks whole.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

RATES = (44_100, 48_000, 32_000)  # of MPEG 1; 2 has the half, 2.5 the quarter
KILOBITS = {  # (MPEG 1, layer): by the index in the header
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
HEAD_BYTES = 4096
FRAME_BYTES = (24, 1441)  # the smallest and the largest
SLACK_BYTES = 3000  # the encoder's own frame, which is counted or not
MOST_TAGS, TAG_BYTES, ID3_FOOTER = 8, 32, 0x10
WHOLE_SHARE = 0.5  # of a file's bytes that must be frames which follow each other
JOINED_SHARE = 1.05  # a file so much larger than its encoder says holds another behind it


@dataclass(frozen=True)
class Frame:
    """An MPEG audio frame's header: its size in bytes, samples, their rate, and the bytes between header and data."""

    size: int
    samples: int
    rate: int
    side: int


def parsed(header: bytes) -> Frame | None:
    """The frame that these four bytes begin; None if they begin none. Free bit rates and layer I, which nobody uses and
    UTF-16's first bytes look like, are none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    index, rate_index, padding, mono = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1, header[3] >> 6 == 3
    first = version == 3
    if version == 1 or layer not in (2, 3) or index in (0, 15) or rate_index == 3:
        return None
    rate = RATES[rate_index] >> (0 if first else 1 if version == 2 else 2)
    bits = KILOBITS[first, layer][index] * 1000
    samples = 1152 if first or layer == 2 else 576
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return Frame(samples // 8 * bits // rate + padding, samples, rate, side)


def promised(path: Path) -> float | None:
    """The seconds that the encoder wrote down (Xing, Info or VBRI), if it did, if they fit to the bytes that it names,
    and if the file holds no more than its one recording. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        at = behind_tags(file, size)
        file.seek(at)
        head = file.read(HEAD_BYTES)
    frame = parsed(head[:4])
    if frame is None:
        return None
    info, vbri = head[4 + frame.side :], head[36:]
    frames = size_promised = 0
    if info[:4] in (b"Xing", b"Info") and len(info) >= 16:
        flags, frames, size_promised = struct.unpack(">LLL", info[4:16])
        frames, size_promised = (frames if flags & 1 else 0), (size_promised if flags & 3 == 3 else 0)
    elif vbri[:4] == b"VBRI" and len(vbri) >= 18:
        size_promised, frames = struct.unpack(">LL", vbri[10:18])
    joined = size_promised and size - at > JOINED_SHARE * size_promised + HEAD_BYTES
    fits = _fit(frames, size_promised, parsed(head[frame.size :][:4]) if info[:4] == b"Info" else None)
    return frames * frame.samples / frame.rate if frames and fits and not joined else None


def _fit(frames: int, size: int, constant: Frame | None) -> bool:
    """Whether so many frames can have that size in bytes, if one is given; `constant` is one of them where all are
    alike."""
    smallest, largest = (constant.size - 1, constant.size + 1) if constant else FRAME_BYTES
    return not size or (frames * smallest <= size + SLACK_BYTES and size <= frames * largest + SLACK_BYTES)


def consists_of_frames(content: bytes) -> bool:
    """Whether frames that follow each other make up most of the file: text can look like a header here and there."""
    at = behind_tags(io.BytesIO(content), len(content))
    found = sum(_sizes(content, at))
    return found > 0 and found >= WHOLE_SHARE * (len(content) - at)


def _sizes(content: bytes, at: int) -> Iterator[int]:
    while at < len(content) and (frame := parsed(content[at : at + 4])) and frame.size > 0:
        yield min(frame.size, len(content) - at)
        at += frame.size


def behind_tags(file: BinaryIO, size: int) -> int:
    """Where the sound begins: behind ID3 tags, whose length has seven bits a byte, and APE tags."""
    at = 0
    for _ in range(MOST_TAGS):
        file.seek(at)
        head = file.read(TAG_BYTES)
        if size_of_tag := tag_bytes(head):
            at += size_of_tag
        elif head[:8] == b"APETAGEX" and len(head) == TAG_BYTES:
            at += TAG_BYTES + int.from_bytes(head[12:16], "little")
        else:
            break
    return min(size, at)


def tag_bytes(head: bytes) -> int:
    """The size of the ID3 tag that begins with these bytes; 0 if none does."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    a, b, c, d = (byte & 0x7F for byte in head[6:10])
    return 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & ID3_FOOTER else 0)
