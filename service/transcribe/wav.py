"""WAV files: whether one was cut off, and the samples of those that need no decoder.

Recorders and programs mostly send 16-bit PCM in one channel. Starting ffmpeg costs as much as half of hearing a short
clip, and there is nothing in such a file to decode, so it is read here. Every other file is ffmpeg's, damaged and odd
WAVs too.
"""

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from .types import SAMPLE_RATE

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
    try:
        with path.open("rb") as file, wave.open(file) as header:
            found = PlainWav(path, file.tell(), header.getnframes(), header.getframerate())
            mono = header.getnchannels() == 1 and header.getsampwidth() == SAMPLE_BYTES
    except (wave.Error, EOFError, RuntimeError):  # the last when a chunk ends behind the one that it is in
        return None
    size = found.samples * SAMPLE_BYTES
    whole = 0 < size < STREAMED_BYTES and found.at + size <= path.stat().st_size
    return found if whole and mono and found.rate in RATES else None


def shortfall(path: Path) -> float:
    """The share of a WAV's samples that its header promises but the file lacks; 0 for anything else. Raises OSError.

    ffmpeg forgives a WAV that was cut off.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return 0.0
    at = 12
    while at + 8 <= len(head):
        size = int.from_bytes(head[at + 4 : at + 8], "little")
        if head[at : at + 4] == b"data":
            lacking = at + 8 + size - path.stat().st_size
            return lacking / size if 0 < size < STREAMED_BYTES and lacking > 0 else 0.0
        at += 8 + size + size % 2
    return 0.0
