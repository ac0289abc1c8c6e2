"""Where behind a recording another one begins that ffmpeg does not come to, as in files that were joined end to end."""

import mmap
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from transcribe.audio import frames, mp3, wav
from transcribe.audio.heads import (
    AIFF,
    AU,
    AVI,
    CAF,
    FILM,
    FLAC_IN_OGG,
    HEAD_BYTES,
    KINDS,
    MATROSKA,
    OGG,
    W64,
    WAV,
    WAVPACK,
    Kind,
    Way,
    begins,
    kind_of,
)

Ends = Callable[[mmap.mmap, int], int | None]  # where the recording that begins there does, by its own word
UNKNOWN = 0xFFFF_FFFF  # a size
PAGE_HEAD, FIRST_PAGE = 27, 2  # of Ogg: bytes, and its flag
CODEC, NAME_BYTES, FLAC_BYTES = 28, 7, 51  # where its name begins in a first page; what must be the same from there on
MOST_TAGS = 100  # among frames
MOST = 1 << 20  # pages or blocks that are looked at: the file is not trusted
SMALLEST = 8  # bytes of a box of MP4
CODECS_BYTES, CODEC_NAMES = 4096, re.compile(rb"[AV]_[A-Z0-9/_]+")  # where Matroska names them
APE_HEAD, ID3V1 = 32, 128  # bytes
PADDED = 4096  # bytes of zeros that may be behind a file


def runs_on(path: Path, begin: int = 0) -> int:
    """Where the recording that begins at `begin` must end lest ffmpeg take another one for its own; 0 where it need not
    be told. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        kind = kind_of(content[begin : begin + HEAD_BYTES])
        if kind is None:
            return _behind_frames(content, begin + mp3.tag_bytes(content[begin : begin + HEAD_BYTES]))
        if kind is OGG or Way.RUNS_ON in kind.way:
            return _by_its_word(content, begin, kind) if kind in ENDS else _next(content, begin, (kind,))
        return 0


def behind(path: Path, begin: int, *, complained: bool = False) -> int:
    """Where the recording that ffmpeg does not come to begins, behind the one that begins at `begin`; 0 for none.
    `complained` says that ffmpeg did. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin += mp3.tag_bytes(content[begin : begin + HEAD_BYTES])
        kind = kind_of(content[begin : begin + HEAD_BYTES])
        if kind is WAV and not begin:
            return wav.followed(path)
        if kind in ENDS and kind:
            return _by_its_word(content, begin, kind)
        if kind is None:
            return _next(content, begin) if complained and frames.begin(content, begin) else 0
        return _next(content, begin) if complained or Way.SILENT in kind.way else 0


def _by_its_word(content: mmap.mmap, begin: int, kind: Kind) -> int:
    """Where another one follows the end that the recording's own headers tell, and is not heard anyhow; 0 if none
    does."""
    end = ENDS[kind](content, begin)
    if end is not None and not begins(content, end):
        end = _behind_tags(content, end)
    return end if end is not None and begins(content, end) and not _heard(content, begin, end) else 0


def _behind_frames(content: mmap.mmap, begin: int) -> int:
    """Where something else follows bare frames; 0 if nothing does. More frames of their codec are the same recording,
    with tags between."""
    end = frames.end(content, begin)
    for _ in range(MOST_TAGS):
        if not end:
            return 0
        behind = _behind_tags(content, end)
        behind += mp3.tag_bytes(content[behind : behind + HEAD_BYTES])
        if behind == end or not frames.alike(content, begin, behind):
            return next((place for place in (end, behind) if begins(content, place)), 0)
        end = frames.end(content, behind)
    return 0


def _heard(content: mmap.mmap, begin: int, following: int) -> bool:
    """Whether ffmpeg comes to the following one by itself."""
    first, second = (content[at : at + CODECS_BYTES] for at in (begin, following))
    kind = kind_of(first[:HEAD_BYTES])
    goes_on = kind is not None and kind is kind_of(second[:HEAD_BYTES]) and Way.GOES_ON in kind.way
    return (
        goes_on
        and kind is not OGG
        and (kind is not MATROSKA or CODEC_NAMES.findall(first) == CODEC_NAMES.findall(second))
    )


def _behind_tags(content: mmap.mmap, at: int) -> int:
    """The place behind the tags and the padding there."""
    while True:
        if content[at : at + 8] == b"APETAGEX":
            at += APE_HEAD + int.from_bytes(content[at + 12 : at + 16], "little")
        elif content[at : at + 3] == b"TAG":
            at += ID3V1
        else:
            return at + len(content[at : at + PADDED]) - len(content[at : at + PADDED].lstrip(b"\0"))


def _next(content: mmap.mmap, begin: int, kinds: Iterable[Kind] = KINDS) -> int:
    """The first place behind `begin` where a recording begins that is not heard anyhow."""
    found = list[int]()
    for other in filter(lambda kind: kind.token, kinds):
        at = content.find(other.token, begin + other.before + 1)
        while at >= 0 and not other.head.match(content[at - other.before : at - other.before + HEAD_BYTES]):
            at = content.find(other.token, at + 1)
        if at >= 0 and not _heard(content, begin, at - other.before):
            found.append(at - other.before)
    return min(found, default=0)


def _pages_end(content: mmap.mmap, begin: int) -> int | None:
    """Of Ogg: up to a stream of another codec, or to what is no page."""
    same = FLAC_BYTES if content[begin + CODEC : begin + CODEC + 1] == b"\x7f" else NAME_BYTES
    codec, at, started = content[begin + CODEC : begin + CODEC + same], begin, False
    for _ in range(MOST):
        if content[at : at + 4] != b"OggS" or at + PAGE_HEAD >= len(content):
            return at
        first = bool(content[at + 5] & FIRST_PAGE)
        if started and first and content[at + CODEC : at + CODEC + same] != codec:
            return at
        started = started or not first
        segments = content[at + PAGE_HEAD - 1]
        at += PAGE_HEAD + segments + sum(content[at + PAGE_HEAD : at + PAGE_HEAD + segments])
    return None


def _blocks_end(content: mmap.mmap, begin: int) -> int | None:
    """Of WavPack: up to another first block, or to what is none."""
    at, started = begin, False
    for _ in range(MOST):
        first = WAVPACK.head.match(content[at : at + HEAD_BYTES]) is not None  # or another of the first's channels
        if content[at : at + 4] != b"wvpk" or (started and first):
            return at
        started = started or not first
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
    return None


def _boxes_end(content: mmap.mmap, begin: int) -> int:
    """Of MP4: up to another film, or to what is no box. A live stream's pieces may have a head each, and are one."""
    at, names = begin, set[bytes]()
    while re.fullmatch(rb"[ -~\xa9]{4}", name := content[at + 4 : at + 8]):
        if name == b"ftyp" and b"mdat" in names and (b"moof" not in names or _clock_begins_anew(content, begin, at)):
            break
        names.add(name)
        size = int.from_bytes(content[at : at + 4], "big")
        size = int.from_bytes(content[at + 8 : at + 16], "big") if size == 1 else size
        if not size:  # to the end
            return len(content)
        if size < SMALLEST or at + size > len(content):
            break
        at += size
    return at


def _clock_begins_anew(content: mmap.mmap, begin: int, at: int) -> bool:
    """Whether the pieces from `at` on are no later than those from `begin` on, by their decode times."""
    first, other = (content.find(b"tfdt", place) for place in (begin, at))
    if not 0 <= first < at <= other:
        return True
    sizes = (8 if content[place + 4 : place + 5] == b"\1" else 4 for place in (first, other))
    earlier, later = (
        int.from_bytes(content[place + 8 : place + 8 + size], "big")
        for place, size in zip((first, other), sizes, strict=True)
    )
    return later <= earlier


def _chunks_end(content: mmap.mmap, begin: int) -> int | None:
    """Of CAF."""
    at = begin + 8
    while re.fullmatch(rb"[a-z]{4}", content[at : at + 4]) and content[at : at + 4] != b"caff":
        size = int.from_bytes(content[at + 4 : at + 12], "big", signed=True)
        if size < 0:
            return None
        at += 12 + size
    return at


def _riffs_end(content: mmap.mmap, begin: int) -> int | None:
    """Of AVI, which goes on in a further chunk for each gigabyte."""
    at = begin
    while content[at : at + 4] == b"RIFF" and (at == begin or content[at + 8 : at + 12] == b"AVIX"):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if not size:
            return None
        at += 8 + size + size % 2
    return at


def _segment_end(content: mmap.mmap, begin: int) -> int | None:
    """Of Matroska: a head, and a segment that may not say how long it is."""
    at = begin
    for number in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        first = int.from_bytes(content[at + 4 : at + 5], "big")
        if content[at : at + 4] != number or not first:
            return None
        length = 9 - first.bit_length()
        size = int.from_bytes(content[at + 4 : at + 4 + length], "big") & (1 << 7 * length) - 1
        if size == (1 << 7 * length) - 1:
            return None
        at += 4 + length + size
    return at


def _says(at: int, size: int, order: Literal["little", "big"], more: int = 0) -> Ends:
    """Of a file whose size is written down, from its byte number `at` on, without so many `more` bytes."""
    return lambda content, begin: begin + more + int.from_bytes(content[begin + at : begin + at + size], order)


def _au_end(content: mmap.mmap, begin: int) -> int | None:
    head, size = (int.from_bytes(content[begin + at : begin + at + 4], "big") for at in (4, 8))
    return begin + head + size if size < UNKNOWN else None


ENDS: dict[Kind, Ends] = {  # of those that say where they end, if they do
    OGG: _pages_end,
    FLAC_IN_OGG: _pages_end,
    WAVPACK: _blocks_end,
    FILM: _boxes_end,
    CAF: _chunks_end,
    AU: _au_end,
    AVI: _riffs_end,
    MATROSKA: _segment_end,
    AIFF: _says(4, 4, "big", 8),
    WAV: _says(4, 4, "little", 8),
    W64: _says(16, 8, "little"),
}
