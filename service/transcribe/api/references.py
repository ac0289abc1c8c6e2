"""Reference recordings of known voices: data URLs in the form, which go to the disk as they are read. In memory a few
of them, held while a request waits for its text, would fill the machine."""

import binascii
import json
import re
from collections.abc import Callable

from werkzeug.datastructures import FileStorage, MultiDict

from transcribe.api.errors import ApiError, bad_request
from transcribe.api.fields import NOTHING
from transcribe.api.spool import Spool

FIELD = "known_speaker_references"
PARAM = f"{FIELD}[]"
RECEIVED = "received"  # what the form has in the place of each
LARGEST = 8 * 1024 * 1024  # bytes: 40 s of uncompressed sound in 16 bits and two channels
SPELLED = re.compile(rf"\s*{FIELD}(?:\[\d*\]|\.\d+)?\s*")
HEAD = re.compile(rb"data:[^,]*;base64,", re.IGNORECASE)
HEAD_BYTES = 256
LONGEST_LIST = 1024 * 1024  # bytes of JSON that holds several
SPACE = re.compile(rb"\s+")

NewSpool = Callable[[], Spool]


def is_reference(name: str) -> bool:
    """Whether a part of the form by this name is a reference recording."""
    return SPELLED.fullmatch(name) is not None


def too_large() -> ApiError:
    """The error for a recording that is longer than any voice needs."""
    return ApiError(413, f"A recording in {PARAM} is larger than {LARGEST} bytes.", PARAM, "file_too_large")


def unusable(why: str) -> ApiError:
    """The error for what is no recording."""
    return bad_request(f"{PARAM} must be data URLs such as data:audio/wav;base64,UklGR…: {why}", PARAM, "invalid_value")


class ReferencePart:
    """A part while it is read: a data URL, a file as it is, or a list of data URLs in JSON."""

    def __init__(self, new: NewSpool, *, is_file: bool) -> None:
        """`new` makes a file for one recording. Raises ApiError if there are too many."""
        self._new, self._is_file = new, is_file
        self._head = bytearray()
        self._write: Callable[[bytes], object] | None = None  # once it is known what it is
        self._url: _DataUrl | None = None
        self._text = bytearray()

    def write(self, data: bytes) -> None:
        """Takes in the next bytes. Raises ApiError."""
        if self._write is None:
            self._head += data
            if len(self._head) >= HEAD_BYTES:
                self._decide()
        else:
            self._write(data)

    def end(self, fields: MultiDict[str, str], _files: MultiDict[str, FileStorage]) -> None:
        """Puts a sign into the form for each recording that came. Raises ApiError."""
        if self._write is None:
            self._decide()
        text = self._text.decode(errors="replace").strip()
        for url in _listed(text):
            part = ReferencePart(self._new, is_file=False)
            part.write(url)
            part.end(fields, _files)
        if self._url is not None:
            self._url.end()
        if self._url is not None or self._is_file:
            fields.add(FIELD, RECEIVED)

    def _decide(self) -> None:
        head = bytes(self._head)
        start = head.lstrip()
        if start[:5].lower() == b"data:":
            matched = HEAD.match(start)
            if matched is None:
                raise unusable("this one is not in base64.")
            self._url = _DataUrl(self._new())
            self._begin(self._url.write, start[matched.end() :])
        elif self._is_file and start:
            self._begin(self._new().write, head)
        else:
            self._is_file = False
            self._begin(self._collect, head)

    def _begin(self, write: Callable[[bytes], object], first: bytes) -> None:
        self._write = write
        write(first)

    def _collect(self, data: bytes) -> None:
        self._text += data
        if len(self._text) > LONGEST_LIST:
            raise unusable("send each as a field of its own.")


class _DataUrl:
    """Decodes base64 into a file, in pieces of any length."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._held = b""  # characters that do not yet make whole bytes

    def write(self, data: bytes) -> None:
        text = self._held + SPACE.sub(b"", data)
        whole = len(text) - len(text) % 4
        if whole and text[:whole].endswith(b"="):
            whole -= 4  # only the end may be padded
        self._decode(text[:whole])
        self._held = text[whole:]

    def end(self) -> None:
        self._decode(self._held + b"=" * (-len(self._held) % 4))
        if not self._spool.size:
            raise unusable("this one has no sound in it.")

    def _decode(self, text: bytes) -> None:
        try:
            self._spool.write(binascii.a2b_base64(text, strict_mode=True) if text else b"")
        except binascii.Error:
            raise unusable("this one is not valid base64.") from None


def _listed(text: str) -> list[bytes]:
    """The data URLs of a list in JSON; [] for a field that says nothing."""
    if text.lower() in NOTHING:
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(url, str) and url[:5].lower() == "data:" for url in found):
        raise unusable("this one is none.")
    return [url.encode(errors="replace") for url in found]  # half a character is no base64 either
