"""A request whose recordings are written to the disk while they are read: no copy in memory."""

import re
from pathlib import Path, PurePath
from typing import IO, Any
from uuid import uuid4

from flask import Request
from werkzeug.datastructures import MultiDict

from ..speakers import names
from . import references
from .errors import ApiError, bad_request
from .form_parser import FormParser
from .spool import PART, Spool

SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
ROOM_FOR_FIELDS = 1024 * 1024  # bytes of a request besides its file


class SpoolingRequest(Request):
    """A request whose file lands in the spool folder. The application sets `spool_folder` and `upload_bytes`."""

    spool_folder: Path
    upload_bytes: int
    max_form_parts = 300
    max_form_memory_size = ROOM_FOR_FIELDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.spools: list[Spool] = []
        self.references: list[Spool] = []

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        if self.spools:
            raise bad_request("Send one file a request.", "file", "invalid_value")
        message = f"The file is larger than {self.upload_bytes} bytes."
        too_large = ApiError(413, message, "file", "file_too_large")
        spool = Spool(self._new_path(), limit=self.upload_bytes, too_large=too_large)
        self.spools.append(spool)
        return spool

    def _new_reference(self) -> Spool:
        if len(self.references) == names.MOST_KNOWN:
            message = f"{references.PARAM} may hold at most {names.MOST_KNOWN} recordings."
            raise bad_request(message, references.PARAM, "invalid_value")
        spool = Spool(self._new_path(), limit=references.LARGEST, too_large=references.too_large())
        self.references.append(spool)
        return spool

    def _new_path(self) -> Path:
        return self.spool_folder / f"{uuid4().hex}{PART}"

    def make_form_data_parser(self) -> FormParser:
        """Makes the parser of this request's form, which says what is wrong with it."""
        parser = FormParser(
            stream_factory=self._get_file_stream,
            max_form_memory_size=self.max_form_memory_size,
            max_content_length=self.max_content_length,
            max_form_parts=self.max_form_parts,
            cls=self.parameter_storage_class,
        )
        parser.new_reference = self._new_reference
        return parser

    def discard_spools(self) -> None:
        """Removes uploads that no job owns."""
        for spool in (*self.spools, *self.references):
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


def reference_recordings(request: Request) -> list[Spool]:
    """The request's recordings of known voices, in the order in which they came."""
    assert isinstance(request, SpoolingRequest)
    return request.references


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
