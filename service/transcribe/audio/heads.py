"""What recordings begin with, by kind."""

import mmap
import re
from dataclasses import dataclass
from enum import Flag, auto

from transcribe.audio import frames, mp3

HEAD_BYTES = 400


class Way(Flag):
    """How ffmpeg reads a kind, as far as it matters where another recording lies behind."""

    PLAIN = 0
    GOES_ON = auto()  # into another of the kind, and is right to
    RUNS_ON = auto()  # into whatever follows, and takes it for its own
    SILENT = auto()  # it does not say that there is more


@dataclass(frozen=True)
class Kind:
    """`head` is what a recording begins with; `token` a part of it by which it is searched, if it is, which `before`
    bytes come before."""

    head: re.Pattern[bytes]
    token: bytes
    before: int = 0
    way: Way = Way.PLAIN


def _kind(head: bytes, token: bytes, before: int = 0, way: Way = Way.PLAIN) -> Kind:
    return Kind(re.compile(head, re.DOTALL), token, before, way)


FLAC_IN_OGG = _kind(rb"OggS\0[\x02\x06].{22}\x7fFLAC", b"\x7fFLAC", 28, Way.RUNS_ON)
OGG = _kind(rb"OggS\0[\x02\x06]", b"OggS\0\x02", way=Way.GOES_ON)
WAVPACK = _kind(rb"wvpk....[\x02-\x10]\x04.{6}\0\0\0\0", b"wvpk")
FILM = _kind(rb"\0\0..ftyp[ -~]{4}", b"ftyp", 4, Way.RUNS_ON)
CAF = _kind(rb"caff\0\x01\0\0desc", b"caff\0\x01", way=Way.SILENT)
AIFF = _kind(rb"FORM....AIF[FC]", b"AIF", 8)
W64 = _kind(rb"riff\x2e\x91\xcf\x11", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0")
AVI = _kind(rb"RIFF....AVI ", b"AVI LIST", 8, Way.GOES_ON)
AU = _kind(rb"\.snd\0\0..", b".snd\0\0", way=Way.RUNS_ON)
WAV = _kind(rb"(?:RIFF|RIFX|RF64|BW64)....WAVE", b"WAVEfmt ", 8)
MATROSKA = _kind(rb"\x1aE\xdf\xa3.{1,40}(?:matroska|webm)", b"\x1aE\xdf\xa3", way=Way.GOES_ON)
ASF_GUID = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c"
KINDS = (
    FLAC_IN_OGG,
    OGG,
    WAVPACK,
    FILM,
    CAF,
    AIFF,
    W64,
    MATROSKA,
    WAV,
    AVI,
    AU,
    _kind(rb"fLaC\0\0\0\x22", b"fLaC\0\0\0\x22", way=Way.RUNS_ON),
    _kind(re.escape(ASF_GUID), ASF_GUID, way=Way.SILENT),
    _kind(rb"FLV\x01[\x01\x04\x05]\0\0\0\x09", b"FLV\x01", way=Way.SILENT),
    _kind(rb"TTA1[\x01\x02]\0", b"TTA1", way=Way.SILENT),
    _kind(rb"Creative Voice File\x1a", b"Creative Voice File\x1a", way=Way.SILENT),
    _kind(rb"\.RMF\0\0\0\x12", b".RMF\0\0\0\x12", way=Way.RUNS_ON),
    _kind(rb"[FC]WS[\x04-\x20]|nut/mult|\x06\x0e\x2b\x34|\xb7\xd8\0\x20|\0\0\0\0\x01\xbc|\.SoX|NSVf|MythTV", b""),
    _kind(rb"G.{187}G.{187}G", b""),  # MPEG's transport stream
    _kind(rb"\0\0\x01\xba[\x20-\x7f]", b""),  # and its program stream
    _kind(rb"#!AMR", b"#!AMR", way=Way.RUNS_ON),
    _kind(rb"MAC [\x80-\xff]\x0f", b"MAC "),
)


def kind_of(head: bytes) -> Kind | None:
    """The kind of a recording with these first bytes, HEAD_BYTES or fewer, as far as it is known."""
    return next((kind for kind in KINDS if kind.head.match(head)), None)


def begins(content: mmap.mmap, at: int) -> bool:
    """Whether a recording begins there."""
    head = content[at : at + HEAD_BYTES]
    return kind_of(head) is not None or frames.begin(content, at + mp3.tag_bytes(head))
