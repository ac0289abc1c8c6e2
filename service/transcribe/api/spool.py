"""Recordings are written to a spool file and hashed while they are read: no copy in memory."""

import hashlib
import io
import struct
from pathlib import Path
from typing import Any

from transcribe.api.errors import ApiError
from transcribe.jobs import uploads
from transcribe.types import MAX_CHANNELS

PART = ".part"  # an upload that no job owns yet
GUESSED_CHANNELS = 2
COMPRESSED_RATE = 8000  # bytes a second, 64 kbit/s: an estimate for the queue until the file is decoded
RIFF_HEADER = struct.Struct("<4s4x4s4s4xHHL6xH")  # up to the bits of a sample of a plain WAV file


class Spool(io.FileIO):
    """A recording's file. `write` refuses more than `limit` bytes with the error `too_large`, and keeps the digest."""

    def __init__(self, path: Path, *, limit: int, too_large: ApiError) -> None:
        super().__init__(path, "x+b")
        self.path = path
        self.size = 0
        self.digest = hashlib.sha256()
        self._limit, self._too_large = limit, too_large

    def write(self, data: Any, /) -> int:
        """Writes all of it. Raises `too_large`, or OSError when the disk is full."""
        view = memoryview(data)
        self.size += len(view)
        if self.size > self._limit:
            raise self._too_large
        self.digest.update(view)
        done = 0
        while done < len(view):
            done += super().write(view[done:]) or 0
        return done

    def facts(self) -> dict[str, Any]:
        """What the record of a result says of the recording."""
        return {"sha256": self.digest.hexdigest(), "bytes": self.size}

    def estimate(self) -> float:
        """A guess of the audio's seconds, for the queue; only a WAV header says more than the size does.

        The header's byte rate is not used: no decoder depends on it, so a forged one would go unnoticed.
        """
        channels, sample_rate, bits = self._form()
        return self.size / (channels * sample_rate * bits / 8 or COMPRESSED_RATE)

    def channels(self) -> int:
        """A guess of how many channels it has, where each is heard by itself: most such recordings have two."""
        channels, _, _ = self._form()
        return min(channels, MAX_CHANNELS) or GUESSED_CHANNELS

    def _form(self) -> tuple[int, int, int]:
        """Channels, samples a second and bits of a sample of a WAV file; zeros for another."""
        self.seek(0)
        head = self.read(RIFF_HEADER.size) or b""
        if len(head) == RIFF_HEADER.size:
            riff, wave, chunk, _, *form = RIFF_HEADER.unpack(head)
            if (riff, wave, chunk) == (b"RIFF", b"WAVE", b"fmt ") and all(form):
                return form[0], form[1], form[2]
        return 0, 0, 0

    def keep(self, target: Path, *, durable: bool) -> None:
        """Makes the file `target`, a file of a job in the same folder, and closes it; a `durable` one outlives a power
        cut."""
        self.path.rename(target)
        self.close()
        if durable:
            uploads.sync(target)

    def discard(self) -> None:
        """Closes the file; removes it unless a job has it."""
        self.close()
        self.path.unlink(missing_ok=True)
