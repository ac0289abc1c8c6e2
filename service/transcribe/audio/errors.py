"""Why a recording cannot be used, in one line for the client."""

import codecs
import re
from typing import Protocol


class AudioError(Exception):
    """A recording that cannot be used. `message` is for the client; `status` is the HTTP status, `code` OpenAI's,
    `param` the form field that is to blame."""

    def __init__(self, message: str, *, code: str = "invalid_audio", status: int = 400, param: str = "file") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.param = param


class DecoderError(Exception):
    """The decoder could not do its work: it is not installed, or somebody ended it, such as the kernel for want of
    memory. That says nothing of the recording. The message is one line for the operator."""


class Limits(Protocol):
    """The part of the configuration's limits that decoding obeys."""

    @property
    def audio_seconds(self) -> float: ...
    @property
    def decode_seconds(self) -> float: ...
    @property
    def decode_bytes(self) -> int: ...


NOT_A_RECORDING = "the file is not a recording, or it is damaged"
REFUSED_FORMAT = re.compile(rb"\[([\w,]+) @ \w+\][^\n]*not on whitelist", re.I)
KINDS = (  # ffmpeg's names of formats that are not accepted, and what such a file is
    (rb"hls|dash|concat|imf|sdp|webm_dash_manifest|applehttp|rtsp|rtp", "a playlist: send the recording that it names"),
    (rb".*_pipe|image2.*|gif|apng|ico|alias_pix|brender_pix|xbm|qoi|fits|bmv|idf|xbin|adf|mjpeg", "a picture"),
    (
        rb"srt|ass|ssa|webvtt|ttml|sami|subviewer1?|microdvd|mpl2|mpsub|vobsub|stl|scc|lrc|jacosub|realtext|pjs|vplayer|"
        rb"aqtitle|mcc|sup|dvbsub|dvbtxt|tedcaptions",
        "a file of subtitles",
    ),
    (rb"tty|bin|ffmetadata|rpl|txd", "a text"),
)
EXPLANATIONS = (  # what ffmpeg says, OpenAI's code, what we say; the first that fits
    (rb"matches no streams|does not contain any stream", "no_audio", "the file has no sound track"),
    (rb"moov atom not found", "audio_truncated", "the file is cut off: its index (moov atom) is missing"),
    (rb"(?i)cannot allocate memory", "invalid_audio", "the file needs more memory to decode than is allowed"),
    (rb"Invalid data found", "invalid_audio", NOT_A_RECORDING),
)
PLAYLIST = re.compile(
    rb"""\s*(?:
    \#EXTM3U | ffconcat | \[(?:playlist|reference|internetshortcut)\]
    | (?:<[?!][^>]*>\s*)*  # a prolog and a document type
      <(?:asx|smil|playlist|MPD|SmoothStreamingMedia|manifest|WinampXML)\b
    | (?:(?:REM|TITLE|PERFORMER|SONGWRITER|CATALOG|CDTEXTFILE)\b[^\n]*\n\s*)*  # a cue sheet
      FILE\s[^\n]*\s(?:WAVE|MP3|AIFF|FLAC|BINARY|MOTOROLA)\b
    | (?:\#[^\n]*\n\s*)* (?:https?|ftp|file|mms|rtmp|rtsp)://[^\s<>"]+ \s*(?:\n|\Z)  # addresses, one a line
    | (?:[^\n\x00-\x08<>]*\.(?:aac|aiff?|flac|m4a|mp3|mp4|ogg|opus|wav|webm|wma)[ \t]*(?:\r?\n\s*|\Z))+\Z  # names
    )""",
    re.IGNORECASE | re.VERBOSE,
)
BYTE_ORDER_MARKS = codecs.BOM_UTF8 + codecs.BOM_UTF16
ARCHIVES = (
    b"PK\3\4",
    b"\x1f\x8b\x08",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
)
PICTURE_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"crx ")  # of files built as MP4 is


def explained(log: bytes) -> AudioError:
    """Why ffmpeg gave no sound, by what it said."""
    if found := REFUSED_FORMAT.search(log):
        name = found[1]
        kind = next((kind for pattern, kind in KINDS if re.fullmatch(pattern, name)), "")
        if kind:
            return AudioError(f"the file is {kind}", code="unsupported_format")
        shown = name.decode("ascii", "replace")
        return AudioError(f"the file is in a format that is not accepted ({shown})", code="unsupported_format")
    for pattern, code, message in EXPLANATIONS:
        if re.search(pattern, log):
            return AudioError(message, code=code)
    return AudioError("the file holds no sound that can be decoded")


def foreign(head: bytes) -> AudioError | None:
    """The error for a file that begins as an archive, a playlist or a picture does; ffmpeg does not know them all."""
    if head.startswith(ARCHIVES):
        return AudioError("the file is an archive: send the recording that is in it", code="unsupported_format")
    text = head.lstrip(BYTE_ORDER_MARKS).replace(b"\0", b"")  # UTF-16 as well
    if PLAYLIST.match(text):
        return AudioError(f"the file is {KINDS[0][1]}", code="unsupported_format")
    if head[4:8] == b"ftyp" and head[8:12] in PICTURE_BRANDS:
        return AudioError("the file is a picture", code="unsupported_format")
    return None
