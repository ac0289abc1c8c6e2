"""Recordings made byte by byte, for what ffmpeg's writers never write: odd headers, tags, clocks and packets. Each
holds the clip."""

import random
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import soundfile
from transcribe.audio import mp3

from support.bad_files import CLIP
from support.recordings import OPUS, content, made

SOUND: bytes = soundfile.read(CLIP, dtype="int16")[0].astype("<i2").tobytes()
BIG_ENDIAN: bytes = soundfile.read(CLIP, dtype="int16")[0].astype(">i2").tobytes()
UNKNOWN = 0xFFFF_FFFF


def riff_chunk(name: bytes, data: bytes, *, size: int | None = None, padded: bool = True) -> bytes:
    """A chunk of a WAV that says it is of `size`, whatever it is."""
    pad = b"\0" * (len(data) % 2) if padded else b""
    return name + struct.pack("<L", len(data) if size is None else size) + data + pad


FMT = riff_chunk(b"fmt ", struct.pack("<HHLLHH", 1, 1, 16_000, 32_000, 2, 16))
EXTENSIBLE = riff_chunk(  # with an empty channel mask
    b"fmt ",
    struct.pack("<HHLLHHHHL", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 0)
    + bytes.fromhex("0100000000001000800000aa00389b71"),
)
DATA = riff_chunk(b"data", SOUND)


def wav(*chunks: bytes, head: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return head + struct.pack("<L", len(body) if size is None else size) + body


def rf64(head: bytes = b"RF64") -> bytes:
    """With sizes of 64 bits, in a chunk of their own."""
    sizes = riff_chunk(b"ds64", struct.pack("<QQQL", len(SOUND) + 72, len(SOUND), len(SOUND) // 2, 0))
    return wav(sizes, FMT, riff_chunk(b"data", SOUND, size=UNKNOWN), head=head, size=UNKNOWN)


def rifx() -> bytes:
    """A WAV with the high byte first."""
    form = struct.pack(">LHHLLHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    body = b"WAVEfmt " + form + b"data" + struct.pack(">L", len(BIG_ENDIAN)) + BIG_ENDIAN
    return b"RIFX" + struct.pack(">L", len(body)) + body


def au(size: int = UNKNOWN, annotation: int = 0) -> bytes:
    return struct.pack(">4sLLLLL", b".snd", 24 + annotation, size, 3, 16_000, 1) + b"x" * annotation + BIG_ENDIAN


def aifc(*, frames: int | None = None, size: int | None = None) -> bytes:
    """AIFF-C with the low byte first, as Macs write it."""
    count = len(SOUND) // 2 if frames is None else frames
    common = struct.pack(">hLh", 1, count, 16) + bytes.fromhex("400cfa00000000000000") + b"sowt\0\0"
    sound = bytes(8) + SOUND
    body = b"AIFCFVER" + bytes.fromhex("00000004a2805140") + b"COMM" + struct.pack(">L", len(common)) + common
    body += b"SSND" + struct.pack(">L", len(sound) if size is None else size) + sound
    return b"FORM" + struct.pack(">L", len(body)) + body


def caf(folder: Path, size: int) -> bytes:
    """With that size of its samples; -1 is that of a recorder that could not know it."""
    whole = content(made(folder, "whole.caf", "-i", CLIP, "-c:a", "pcm_s16le"))
    at = whole.index(b"data") + 4
    return whole[:at] + struct.pack(">q", size) + whole[at + 8 :]


def flac(folder: Path, samples: int) -> bytes:
    """That promises so many samples; 0 is unknown."""
    whole = bytearray(content(made(folder, "whole.flac", "-i", CLIP)))
    kept = int.from_bytes(whole[18:26], "big") >> 36 << 36
    whole[18:26] = (kept | samples).to_bytes(8, "big")
    return bytes(whole)


def plain_mp3(folder: Path, *arguments: str) -> bytes:
    """Without a tag."""
    return content(made(folder, "plain.mp3", "-i", CLIP, *arguments, "-id3v2_version", "0"))


def id3(size: int, *, footer: bool = False) -> bytes:
    """A tag of that size, as a picture makes it."""
    length = bytes(size >> bits & 0x7F for bits in (21, 14, 7, 0))
    picture = b"APIC" + struct.pack(">L", size - 10) + b"\0\0\0image/jpeg\0\3\0" + random.Random(2).randbytes(size)
    end = b"3DI\4\0\x10" + length if footer else b""
    return b"ID3\4\0" + (b"\x10" if footer else b"\0") + length + picture[:size] + end


def ape(size: int) -> bytes:
    """An APE tag with a picture of that size."""
    item = struct.pack("<LL", size, 2) + b"Cover Art (front)\0" + random.Random(3).randbytes(size)
    head, end = (
        b"APETAGEX" + struct.pack("<LLLL", 2000, len(item) + 32, 1, flags) + bytes(8)
        for flags in (0xA000_0000, 0x8000_0000)
    )
    return head + item + end


def promising(whole: bytes, *, frames: int | None = None, size: int | None = None) -> bytes:
    """An MP3 whose encoder wrote down so many frames and bytes."""
    at = max(whole.find(b"Info", 0, 200), whole.find(b"Xing", 0, 200)) + 8
    counts = [whole[at : at + 4], whole[at + 4 : at + 8]]
    counts = [old if new is None else struct.pack(">L", new) for old, new in zip(counts, (frames, size), strict=True)]
    return whole[:at] + b"".join(counts) + whole[at + 8 :]


def mp3_frames(folder: Path) -> list[bytes]:
    whole, at, found = plain_mp3(folder, "-write_xing", "0"), 0, list[bytes]()
    while frame := mp3.parsed(whole[at : at + 4]):
        found.append(whole[at : at + frame.size])
        at += frame.size
    return found


def ogg_pages(whole: bytes) -> Iterator[bytearray]:
    at = 0
    while at < len(whole):
        segments = whole[at + 26]
        end = at + 27 + segments + sum(whole[at + 27 : at + 27 + segments])
        yield bytearray(whole[at:end])
        at = end


def ogg_packets(whole: bytes) -> list[bytes]:
    found, packet = list[bytes](), b""
    for page in ogg_pages(whole):
        at = 27 + page[26]
        for size in page[27:at]:
            packet, at = packet + page[at : at + size], at + size
            if size < 255:
                found, packet = [*found, packet], b""
    return found


def summed(page: bytearray) -> bytes:
    """The page with the checksum of its content."""
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C1_1DB7 if checksum >> 31 else 0)) & 0xFFFF_FFFF
    page[22:26] = struct.pack("<L", checksum)
    return bytes(page)


def ogg_from(whole: bytes, position: int) -> bytes:
    """Of a stream that is on the air for so many samples already."""
    pages = list(ogg_pages(whole))
    for page in pages:
        if (at := struct.unpack("<q", page[6:14])[0]) > 0:
            page[6:14] = struct.pack("<q", at + position)
    return b"".join(map(summed, pages))


def opus_skipping(folder: Path, samples: int) -> bytes:
    """An Opus file with so many samples more before the clip, which its header says to skip."""
    delayed = ("-af", f"adelay={samples // 48}")
    pages = list(ogg_pages(content(made(folder, "skipping.opus", "-i", CLIP, *delayed, *OPUS))))
    at = pages[0].index(b"OpusHead") + 10
    pages[0][at : at + 2] = struct.pack("<H", struct.unpack("<H", pages[0][at : at + 2])[0] + samples)
    return b"".join(map(summed, pages))


def element(number: str, data: bytes, *, unknown: bool = False) -> bytes:
    """One of Matroska's, by its number in hex digits; of a size that only its end tells, where that is `unknown`."""
    size = b"\x01" + b"\xff" * 7 if unknown else (len(data) | 1 << 56).to_bytes(8, "big")
    return bytes.fromhex(number) + size + data


def laced(frames: Sequence[bytes], kind: str) -> bytes:
    """The flags of a block, the sizes of its frames and the frames."""
    whole = b"".join(frames)
    if kind == "xiph":
        sizes = b"".join(b"\xff" * (len(frame) // 255) + bytes([len(frame) % 255]) for frame in frames[:-1])
        return bytes([0x02, len(frames) - 1]) + sizes + whole
    if kind == "ebml":
        steps = (len(after) - len(before) + (1 << 13) - 1 | 1 << 14 for before, after in pairwise(frames[:-1]))
        first = (len(frames[0]) | 1 << 14).to_bytes(2, "big")
        return bytes([0x06, len(frames) - 1]) + first + b"".join(step.to_bytes(2, "big") for step in steps) + whole
    return bytes([0x04, len(frames) - 1]) + whole


def matroska(codec: bytes, frames: Sequence[bytes], milliseconds: float, lacing: str, **more: bytes) -> bytes:
    """Six frames a block, 20 blocks a cluster, of unknown sizes, with no word of how long a frame lasts."""
    rate = more.get("rate", struct.pack(">d", 16_000))
    sound = element("B5", rate) + element("9F", b"\1") + (element("6264", b"\x10") if b"PCM" in codec else b"")
    private = element("63A2", more["private"]) if "private" in more else b""
    track = element("D7", b"\1") + element("73C5", b"\1") + element("9C", b"\1") + element("83", b"\2")
    track += element("86", codec) + private + element("E1", sound)
    info = element("2AD7B1", b"\x0f\x42\x40") + element("4D80", b"by hand") + element("5741", b"by hand")
    segment = element("1549A966", info) + element("1654AE6B", element("AE", track))
    for first in range(0, len(frames), 120):
        start = round(first * milliseconds)
        blocks = element("E7", start.to_bytes(4, "big"))
        for at in range(first, min(first + 120, len(frames)), 6):
            head = b"\x81" + struct.pack(">h", round(at * milliseconds) - start)
            blocks += element("A3", head + laced(frames[at : at + 6], lacing))
        segment += element("1F43B675", blocks, unknown=True)
    head = element("4282", b"matroska") + element("4287", b"\4") + element("4285", b"\2")
    return element("1A45DFA3", head) + element("18538067", segment, unknown=True)
