"""Uploads are written to a spool file and hashed while they are read: no copy in memory."""

import hashlib
import io
import os
import re
import struct
from pathlib import Path, PurePath
from typing import IO, Any
from uuid import uuid4

from flask import Request
from werkzeug.datastructures import MultiDict

from .errors import ApiError, bad_request
from .form_parser import FormParser

PART = ".part"  # an upload that no job owns yet
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
ROOM_FOR_FIELDS = 1024 * 1024  # bytes of a request besides its file
COMPRESSED_RATE = 8000  # bytes a second, 64 kbit/s: an estimate for the queue until the file is decoded
RIFF_HEADER = struct.Struct("<4s4x4s4s4xHHL6xH")  # up to the bits of a sample of a plain WAV file


class Spool(io.FileIO):
    """The upload's file. `write` refuses more than `limit` bytes and keeps the digest."""

    def __init__(self, path: Path, *, limit: int) -> None:
        super().__init__(path, "x+b")
        self.path = path
        self.size = 0
        self.digest = hashlib.sha256()
        self._limit = limit

    def write(self, data: Any, /) -> int:
        """Writes all of it. Raises ApiError 413, or OSError when the disk is full."""
        view = memoryview(data)
        self.size += len(view)
        if self.size > self._limit:
            message = f"The file is larger than {self._limit} bytes."
            raise ApiError(413, message, "file", "file_too_large")
        self.digest.update(view)
        done = 0
        while done < len(view):
            done += super().write(view[done:]) or 0
        return done

    def estimate(self) -> float:
        """A guess of the audio's seconds, for the queue; only a WAV header says more than the size does.

        The header's byte rate is not used: no decoder depends on it, so a forged one would go unnoticed.
        """
        self.seek(0)
        head = self.read(RIFF_HEADER.size) or b""
        rate = COMPRESSED_RATE
        if len(head) == RIFF_HEADER.size:
            riff, wave, chunk, _, channels, sample_rate, bits = RIFF_HEADER.unpack(head)
            if (riff, wave, chunk) == (b"RIFF", b"WAVE", b"fmt ") and channels and sample_rate and bits:
                rate = channels * sample_rate * bits / 8
        return self.size / rate

    def keep(self, job_id: str) -> Path:
        """Makes the upload durable under the job's name."""
        os.fsync(self.fileno())
        target = self.path.with_name(job_id)
        self.path.rename(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return target

    def discard(self) -> None:
        """Closes the file; removes it unless a job has it."""
        self.close()
        self.path.unlink(missing_ok=True)


class SpoolingRequest(Request):
    """A request whose file lands in the spool folder. The application sets `spool_folder` and `upload_bytes`."""

    spool_folder: Path
    upload_bytes: int
    max_form_parts = 300
    max_form_memory_size = ROOM_FOR_FIELDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.spools: list[Spool] = []

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        if self.spools:
            raise bad_request("Send one file a request.", "file", "invalid_value")
        spool = Spool(self.spool_folder / f"{uuid4().hex}{PART}", limit=self.upload_bytes)
        self.spools.append(spool)
        return spool

    def make_form_data_parser(self) -> FormParser:
        """Makes the parser of this request's form, which says what is wrong with it."""
        return FormParser(
            stream_factory=self._get_file_stream,
            max_form_memory_size=self.max_form_memory_size,
            max_content_length=self.max_content_length,
            max_form_parts=self.max_form_parts,
            cls=self.parameter_storage_class,
        )

    def discard_spools(self) -> None:
        """Removes uploads that no job owns."""
        for spool in self.spools:
            spool.discard()


def form(request: Request) -> MultiDict[str, str]:
    """The request's fields; its file is on the disk afterwards. Raises ApiError if it is not a form with files."""
    if request.mimetype != "multipart/form-data":
        found = f"its Content-Type is {request.mimetype}" if request.mimetype else "it has no Content-Type"
        message = f"Send the request as multipart/form-data, with the recording in the part named file; {found}."
        raise ApiError(415, message, code="unsupported_media_type")
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        message = f"Send the request without Content-Encoding: {encoding}; this server takes bodies as they are."
        raise ApiError(415, message, code="unsupported_media_type")
    return request.form


def uploaded(request: Request) -> tuple[Spool, str]:
    """The request's file and its suffix ('.mp3', or ''). Raises ApiError if there is no usable file."""
    assert isinstance(request, SpoolingRequest)
    files = request.files
    if "file" not in files or not request.spools:
        raise bad_request("You must provide a file parameter.", "file", "missing_required_parameter")
    spool = request.spools[0]
    if spool.size == 0:
        raise bad_request("The file is empty.", "file", "empty_file")
    suffix = PurePath(files["file"].filename or "").suffix.lower()  # a hint only; never part of a path
    return spool, suffix if SUFFIX.fullmatch(suffix) else ""
