"""WAV files: whether one was cut off, and the samples of those that need no decoder.

Recorders and programs mostly send 16-bit PCM in one channel. Starting ffmpeg costs as much as half of hearing a short
clip, and there is nothing in such a file to decode, so it is read here. Every other file is ffmpeg's, damaged and odd
WAVs too. Of the header no more than HEAD_BYTES are looked at: the file is not trusted.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from transcribe.types import SAMPLE_RATE

HEAD_BYTES = 4096
FORM = struct.Struct("<HHLLHH")  # codec, channels, samples and bytes a second, bytes of all channels, bits of one
PCM = 1
SAMPLE_BYTES = 2
RATES = range(4_000, 192_001)
BLOCK_SECONDS = 16
STREAMED_BYTES = 0x7FFF_0000  # what recorders that cannot seek write as the size: it promises nothing


@dataclass(frozen=True)
class PlainWav:
    """16-bit PCM in one channel, all of it in the file: where its samples begin, how many there are, and their rate."""

    path: Path
    at: int
    samples: int
    rate: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The samples at 16 kHz, float32 in [-1, 1]. Ends early when the file does. Raises OSError."""
        resampler = soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32")
        left = self.samples
        with self.path.open("rb") as file:
            file.seek(self.at)
            while left > 0:
                data = file.read(SAMPLE_BYTES * min(left, BLOCK_SECONDS * self.rate))
                read = len(data) // SAMPLE_BYTES
                left = left - read if read else 0
                block = np.frombuffer(data, "<i2", read).astype(np.float32)
                block /= 32_768
                if self.rate != SAMPLE_RATE:
                    block = np.clip(resampler.resample_chunk(block, last=not left), -1.0, 1.0)
                yield block


def plain(path: Path) -> PlainWav | None:
    """What `path` holds if it is plain and whole. Raises OSError."""
    header = _header(path)
    if header is None or len(header.forms) != 1 or len(header.forms[0]) < FORM.size:
        return None
    codec, channels, rate, _, frame, bits = FORM.unpack(header.forms[0])
    mono = (codec, channels, frame, bits) == (PCM, 1, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    samples = header.size // SAMPLE_BYTES
    whole = samples > 0 and header.promises and header.lacking == 0
    return PlainWav(path, header.at, samples, rate) if mono and whole and rate in RATES else None


def shortfall(path: Path) -> float:
    """The share of a WAV's samples that its header promises but the file lacks; 0 for anything else. Raises OSError.

    ffmpeg forgives a WAV that was cut off.
    """
    header = _header(path)
    return header.lacking / header.size if header and header.promises else 0.0


@dataclass(frozen=True)
class Header:
    """What leads to a WAV's samples."""

    forms: tuple[bytes, ...]  # of each chunk that tells their format, the beginning; there should be one
    at: int  # where the samples begin
    size: int  # of theirs, in bytes
    lacking: int  # of which the file has not

    @property
    def promises(self) -> bool:
        return 0 < self.size < STREAMED_BYTES


def _header(path: Path) -> Header | None:
    """None for a file that is no WAV, or whose samples begin behind HEAD_BYTES. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at, forms = 12, list[bytes]()
    while at + 8 <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        at += 8
        if name == b"data":
            return Header(tuple(forms), at, size, max(0, at + size - path.stat().st_size))
        if name == b"fmt ":
            forms.append(head[at : at + min(size, FORM.size)])
        at += size + size % 2
    return None
