"""What is to be submitted: files on this computer and objects in S3."""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transcribe.fleet.drops import COMPRESSED_RATE

from baker.aws.client import aws_errors
from baker.context import BakeContext
from baker.errors import UsageError

S3 = "s3://"
RIFF_HEADER = struct.Struct("<4s4x4s4s4xHHL6xH")  # up to the bits of a sample of a plain WAV file
BLOCK = 1 << 20


@dataclass(frozen=True)
class Recording:
    """One recording; `name` is shown. It is a file at `path`, or the object `key` in `bucket` with this ETag. `problem`
    says in a few words why it cannot be sent."""

    name: str
    size: int
    seconds: float
    path: Path | None = None
    bucket: str = ""
    key: str = ""
    etag: str = ""
    problem: str = ""

    def digest(self) -> str:
        """The SHA-256 of a file, in hexadecimal. Raises OSError."""
        assert self.path is not None
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()


def find(context: BakeContext, words: list[str], found_one: Callable[[], None]) -> list[Recording]:
    """All recordings that the words name; `found_one` is told of each. Raises UsageError for a word that names none."""
    found: list[Recording] = []
    for word in words:
        before = len(found)
        for recording in _objects(context, word) if word.startswith(S3) else _files(Path(word)):
            found.append(recording)
            found_one()
        if len(found) == before:
            raise UsageError(f"{word}: there is nothing to submit")
    return found


def _files(path: Path) -> Iterator[Recording]:
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    if not path.is_dir():
        yield _file(path)
        return
    refused: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=refused.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (_file(Path(folder, name)) for name in sorted(names) if not name.startswith("."))
    for error in refused:
        yield Recording(_shown(error.filename), 0, 0.0, problem=error.strerror or "it cannot be read")


def _file(path: Path) -> Recording:
    name = _shown(path)
    try:
        size = path.stat().st_size
        if not path.is_file() or not size:
            return Recording(name, 0, 0.0, problem="it is empty" if path.is_file() else "it is no file")
        return Recording(name, size, _seconds(path), path=path)
    except OSError as error:
        return Recording(name, 0, 0.0, problem=error.strerror or str(error))


def _shown(path: str | Path) -> str:
    """A path as text; a name need not be text."""
    return os.fsencode(path).decode(errors="replace")


def _objects(context: BakeContext, word: str) -> Iterator[Recording]:
    bucket, _, prefix = word.removeprefix(S3).partition("/")
    if not bucket:
        raise UsageError(f"{word}: name a bucket, such as s3://recordings/2026")
    with aws_errors(f"ListObjectsV2 {word}"):
        pages = context.clients.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", []):
                size, key = entry["Size"], entry["Key"]
                name, problem = f"{S3}{bucket}/{key}", "" if size else "it is empty"
                if size or not key.endswith("/"):  # which stands for a folder
                    seconds = size / COMPRESSED_RATE
                    yield Recording(name, size, seconds, None, bucket, key, entry["ETag"], problem)


def _seconds(path: Path) -> float:
    """A guess of the audio's length; only a plain WAV file says more than its size does."""
    rate, size = float(COMPRESSED_RATE), path.stat().st_size
    with path.open("rb") as file:
        head = file.read(RIFF_HEADER.size)
    if len(head) == RIFF_HEADER.size:
        riff, wave, chunk, _, channels, sample_rate, bits = RIFF_HEADER.unpack(head)
        if (riff, wave, chunk) == (b"RIFF", b"WAVE", b"fmt ") and channels and sample_rate and bits:
            rate = channels * sample_rate * bits / 8
    return size / rate
