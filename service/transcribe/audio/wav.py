"""WAV files: whether one was cut off, and the samples of those that need no decoder.

Recorders and programs mostly send 16-bit PCM in one channel. Starting ffmpeg costs as much as half of hearing a short
clip, and there is nothing in such a file to decode, so it is read here. Every other file is ffmpeg's, damaged and odd
WAVs too.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

from transcribe.audio.heads import begins
from transcribe.types import SAMPLE_RATE

HEAD_BYTES = 4096
CHUNK_HEAD = 8  # bytes
MOST_CHUNKS = 64  # that are looked at: the file is not trusted
WAVES = (b"RIFF", b"RF64", b"BW64")  # the later ones for sizes of 64 bits, in the chunk ds64
LONGEST_REST = 4096  # bytes behind the last chunk that mean nothing
UNKNOWN = 0xFFFF_FFFF  # a size that is in ds64
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
    samples = (header.there if header.runs_on else header.size) // SAMPLE_BYTES
    whole = samples > 0 and header.promises and header.lacking == 0
    return PlainWav(path, header.at, samples, rate) if mono and whole and rate in RATES else None


def shortfall(path: Path) -> float:
    """The share of a WAV's samples that its header promises but the file lacks; 0 for anything else. Raises OSError.

    ffmpeg forgives a WAV that was cut off.
    """
    header = _header(path)
    return header.lacking / header.size if header and header.promises else 0.0


def runs_on(path: Path) -> bool:
    """Whether a WAV holds more sound than its header says, as do files that were joined, and those of recorders that
    were switched off before they wrote the header anew. Raises OSError."""
    header = _header(path)
    return header is not None and header.runs_on


def followed(path: Path) -> int:
    """Where behind a WAV another recording begins, in a format that does not go with it; 0 for none. Raises OSError."""
    header = _header(path)
    return header.followed if header else 0


def open_ended(path: Path) -> bool:
    """Whether a WAV's header does not say where its sound ends: then it ends with the file. Raises OSError."""
    header = _header(path)
    return header is not None and (header.runs_on or not header.promises)


def swapped(path: Path) -> str:
    """ffmpeg's name of the samples in a WAV that has the high byte first, which it does not find out; '' for another.
    Raises OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    at = head.find(b"fmt ") + 8
    if head[:4] != b"RIFX" or at < 8 or len(head) < at + FORM.size:
        return ""
    codec, *_, bits = struct.unpack(">HHLLHH", head[at : at + FORM.size])
    return f"pcm_s{bits}be" if codec == PCM and bits in (16, 24, 32) else ""


@dataclass(frozen=True)
class Header:
    """What leads to a WAV's samples."""

    forms: tuple[bytes, ...]  # of each chunk that tells their format, the beginning; there should be one
    at: int  # where the samples begin
    size: int  # of theirs, in bytes, as the header promises it
    there: int  # how many bytes the file has from there on
    promises: bool  # whether the size is a promise
    runs_on: bool = False  # behind those that are promised there are more
    followed: int = 0  # where behind them another recording begins, in another format

    @property
    def lacking(self) -> int:
        """How many of the bytes that are promised the file has not."""
        return max(0, self.size - self.there)


def _header(path: Path) -> Header | None:
    """None for a file that is no WAV, or whose samples are not found. Raises OSError."""
    found = path.stat()
    return _header_of(path, found.st_size, (found.st_ino, found.st_mtime_ns))


@lru_cache(16)  # several parts ask for it, one after the other
def _header_of(path: Path, length: int, _version: tuple[int, int]) -> Header | None:
    forms, long = list[bytes](), 0
    found: Header | None = None
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in WAVES or head[8:] != b"WAVE":
            return None
        for name, at, size in _chunks(file):
            if found and (name == b"data" or (name in WAVES and forms and forms[0] in file.read(HEAD_BYTES))):
                return replace(found, runs_on=True)
            if found and _begins(file, at - CHUNK_HEAD):
                return replace(found, followed=at - CHUNK_HEAD)
            if found and not _is_name(name):
                return replace(found, runs_on=length - at > LONGEST_REST)
            if found is None and name == b"fmt ":
                forms.append(file.read(min(size, FORM.size)))
            elif found is None and name == b"ds64":
                long = int.from_bytes(file.read(16)[8:], "little")
            elif found is None and name == b"data":
                promises = bool(long and size == UNKNOWN) or 0 < size < STREAMED_BYTES
                found = Header(tuple(forms), at, long if size == UNKNOWN else size, length - at, promises)
    return found


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The name, the place of the content and the size of each chunk from here on, a few of them; whoever takes one may
    read in it."""
    for _ in range(MOST_CHUNKS):
        head = file.read(CHUNK_HEAD)
        if len(head) < CHUNK_HEAD:
            return
        at, size = file.tell(), int.from_bytes(head[4:], "little")
        yield head[:4], at, size
        file.seek(at + size)
        padded = size % 2 and not _is_name(file.read(4))  # some writers leave the padding out
        file.seek(at + size + padded)


def _begins(file: BinaryIO, at: int) -> bool:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return begins(content, at)


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and name.isascii() and name.decode().isprintable()
