"""Reads a multipart form: its fields, and its file straight to the disk. A form that cannot be read is refused with the
reason, where werkzeug would take it for an empty one."""

import binascii
import codecs
import contextlib
import encodings
import pkgutil
import re
from collections.abc import Callable
from encodings.aliases import aliases
from typing import IO, Any, Protocol
from urllib.parse import unquote

from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData, State

from transcribe.api.errors import ApiError, bad_request
from transcribe.api.references import ReferencePart, is_reference
from transcribe.api.spool import Spool

READ_BYTES = 256 * 1024
LONGEST_BREAK = 2  # bytes of a line break, which leads a boundary
LARGEST_FIELDS = 2 * 1024 * 1024  # bytes of all fields' names and values, which are in memory at once
LARGEST_HEAD = 16 * 1024  # bytes of a part's headers; the longest names of files take a tenth of that
# Those that are decoded in linear time. Who names iso8859-1 means cp1252, as in browsers.
CHARSETS = re.compile(r"(iso8859-(?!1$)|cp|mac|koi8|gb|big5|shift_jis|euc_|utf-16|utf-32).*")
WIDE = ("utf-16", "utf-32")  # their bytes may be UTF-8 as well
CODECS = frozenset((*aliases, *aliases.values(), *(module.name for module in pkgutil.iter_modules(encodings.__path__))))
SINGLE_QUOTES = re.compile(rb"(;\s*(?:file)?name=)'([^'\"\r\n]*)'(?=[;\s]|\Z)", re.IGNORECASE)
ENCODINGS: dict[str, Callable[[bytearray], bytes]] = {  # that a field's text may have
    "base64": binascii.a2b_base64,
    "quoted-printable": binascii.a2b_qp,
}
PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
FILE_NAMES = ("file", "file[]", "file[0]")
BY_HAND = "Let your HTTP library write the Content-Type header."
UNREADABLE = {
    State.PREAMBLE: f"the body does not have the boundary that the Content-Type header names. {BY_HAND}",
    State.PART: "the body ends before its closing boundary; was the upload cut off?",
    State.DATA_START: "the body ends before its closing boundary; was the upload cut off?",
    State.DATA: "the body ends before its closing boundary; was the upload cut off?",
}


def unreadable(why: str) -> ApiError:
    """The error for a form that cannot be read."""
    return bad_request(f"The form cannot be read: {why}", code="invalid_form")


class Boundary:
    """A boundary's pattern, tried only from where the boundary's text is: tried at every byte of a recording, it takes
    longer than all else that is done with a clip here."""

    def __init__(self, pattern: re.Pattern[bytes], boundary: bytes) -> None:
        self._pattern, self._text = pattern, b"--" + boundary

    def search(self, data: bytes | bytearray) -> re.Match[bytes] | None:
        """The first match."""
        at = data.find(self._text)
        return None if at < 0 else self._pattern.search(data, max(0, at - LONGEST_BREAK))


class Decoder(MultipartDecoder):
    """werkzeug's, for the part headers that clients really send."""

    def __init__(self, boundary: bytes, max_form_memory_size: int | None, *, max_parts: int | None) -> None:
        super().__init__(boundary, max_form_memory_size, max_parts=max_parts)
        self.boundary_re: Any = Boundary(self.boundary_re, boundary)

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        if len(data) > LARGEST_HEAD:
            message = f"The headers of a part are larger than {LARGEST_HEAD} bytes."
            raise ApiError(413, message, code="request_too_large")
        try:
            data.decode()
        except UnicodeDecodeError:  # a file name in the encoding of an older system
            data = data.decode("cp1252", "replace").encode()
        return super()._parse_headers(SINGLE_QUOTES.sub(rb'\1"\2"', data))


class FormParser(FormDataParser):
    """Parses multipart forms. Raises ApiError 400 for one that cannot be read, or RequestEntityTooLarge.

    `new_reference` makes the file for a reference recording.
    """

    new_reference: Callable[[], Spool]

    def _parse_multipart(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str]
    ) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        boundary = options.get("boundary", "")
        if not boundary:
            raise unreadable(f"the Content-Type header has no boundary. {BY_HAND}")
        if not boundary.isascii():
            raise unreadable("the boundary in the Content-Type header is not ASCII.")
        if not content_length:
            raise unreadable("the body is empty.")
        decoder = Decoder(
            boundary.encode(), max_form_memory_size=self.max_form_memory_size, max_parts=self.max_form_parts
        )
        fields: MultiDict[str, str] = MultiDict()
        files: MultiDict[str, FileStorage] = MultiDict()
        self._room = LARGEST_FIELDS
        part: _Part | None = None
        for event in _events(decoder, stream):
            if isinstance(event, Field | File):
                part = self._begin(event, content_length)
            elif isinstance(event, Data) and part is not None:
                part.write(event.data)
                if not event.more_data:
                    part.end(fields, files)
        return stream, fields, files

    def _begin(self, event: Field | File, content_length: int) -> "_Part":
        if not event.name:
            raise unreadable("a part has no name.")
        name = unquote(event.name)  # some clients escape brackets
        encoding = event.headers.get("Content-Transfer-Encoding", "").strip().lower()
        field = name not in FILE_NAMES and not is_reference(name)
        if encoding not in PLAIN_ENCODINGS and not (field and encoding in ENCODINGS):
            message = f"Send the part {name} as it is, without Content-Transfer-Encoding: {encoding}."
            raise bad_request(message, name, "unsupported_encoding")
        if name in FILE_NAMES:  # also without a file name, which some clients leave out
            filename = event.filename if isinstance(event, File) else ""
            storage: Any = self.stream_factory(content_length, event.headers.get("Content-Type"), filename, None)
            return _FilePart("file", filename, storage)
        if is_reference(name):
            return ReferencePart(self.new_reference, is_file=isinstance(event, File))
        self._keep(len(name.encode(errors="replace")))
        content_type = event.headers.get("Content-Type", "")
        charset = parse_options_header(content_type)[1].get("charset", "")
        return _FieldPart(name, (encoding, charset), self.max_form_memory_size or 0, self._keep)

    def _keep(self, size: int) -> None:
        """Counts bytes that stay in memory. Raises ApiError 413 when they are too many in all."""
        self._room -= size
        if self._room < 0:
            message = f"The fields are larger than {LARGEST_FIELDS} bytes in all."
            raise ApiError(413, message, code="request_too_large")


class _Part(Protocol):
    """A part while it is read."""

    def write(self, data: bytes) -> None: ...

    def end(self, fields: MultiDict[str, str], files: MultiDict[str, FileStorage]) -> None: ...


class _FieldPart:
    def __init__(self, name: str, coded: tuple[str, str], limit: int, keep: Callable[[int], None]) -> None:
        """`coded` is the Content-Transfer-Encoding and the charset."""
        self._name, self._limit, self._keep = name, limit, keep
        self._encoding, self._charset = coded
        self._content = bytearray()

    def write(self, data: bytes) -> None:
        self._content += data
        if len(self._content) > self._limit:
            message = f"The field {self._name} is larger than {self._limit} bytes; a recording goes into the part file."
            raise ApiError(413, message, self._name, "request_too_large")
        self._keep(len(data))

    def end(self, fields: MultiDict[str, str], files: MultiDict[str, FileStorage]) -> None:
        content = self._content
        if decode := ENCODINGS.get(self._encoding):
            try:
                content = bytearray(decode(content))
            except binascii.Error:
                message = f"The part {self._name} is not in {self._encoding}, as its head says."
                raise bad_request(message, self._name, "unsupported_encoding") from None
        fields.add(self._name, _text(content, self._charset))


def _text(content: bytearray, charset: str) -> str:
    """A field's value: UTF-8, or else in the encoding that it names, or else in the one of older systems."""
    named = _encoding(charset)
    order = (named, "utf-8") if named.startswith(WIDE) else ("utf-8", named)
    for encoding in filter(None, order):
        with contextlib.suppress(ValueError):  # the value is not in it
            return content.decode(encoding)
    return content.decode("cp1252", "replace")


def _encoding(charset: str) -> str:
    """Python's name for an encoding that a field may have; '' for another. Only names that Python knows are looked up:
    it would keep every other one for as long as the process lives."""
    name = encodings.normalize_encoding(charset).lower()
    if name not in CODECS:
        return ""
    try:
        found = codecs.lookup(name).name
    except LookupError:  # one of another system's, such as mbcs
        return ""
    return found if CHARSETS.fullmatch(found) else ""


class _FilePart:
    def __init__(self, name: str, filename: str, storage: IO[bytes]) -> None:
        self._name, self._filename, self._storage = name, filename, storage

    def write(self, data: bytes) -> None:
        self._storage.write(data)

    def end(self, fields: MultiDict[str, str], files: MultiDict[str, FileStorage]) -> None:
        self._storage.seek(0)
        files.add(self._name, FileStorage(self._storage, self._filename, self._name))


def _events(decoder: MultipartDecoder, stream: IO[bytes]) -> Any:
    """The parts of the form as they are read. Raises ApiError 400 when there is no sense in it."""
    data: bytes | None = b"-"
    while data is not None:
        data = stream.read(READ_BYTES) or None
        event: Event = _checked(decoder, data)
        while not isinstance(event, NeedData | Epilogue):
            yield event
            event = _checked(decoder)


def _checked(decoder: MultipartDecoder, data: bytes | None = b"") -> Event:
    """Takes in data, if there is any, or its end (None); the next event."""
    try:
        if data != b"":
            decoder.receive_data(data)
        return decoder.next_event()
    except RequestEntityTooLarge:
        if decoder.state not in (State.PREAMBLE, State.PART) or decoder._parts_decoded > (decoder.max_parts or 0):
            raise
    except ValueError as error:
        if not decoder.complete or "beyond" not in str(error):
            raise unreadable("a part has no Content-Disposition header.") from None
    raise unreadable(UNREADABLE.get(decoder.state, "it has no end."))
