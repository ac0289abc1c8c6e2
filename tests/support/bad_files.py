"""Recordings that cannot be used, made by hand: the content of each and the code that it must be refused with; '' where
ffmpeg's guess at the format decides between two."""

import base64
import gzip
import random
import struct
import subprocess
import zlib
from pathlib import Path

CLIP = Path(__file__).resolve().parents[1] / "audio" / "austen-0920.flac"
SECONDS = 6.05  # that it lasts
LONGEST = 600  # seconds: what `too_long` is made for
INVALID, CUT, FOREIGN, MUTE, EMPTY = (
    "invalid_audio",
    "audio_truncated",
    "unsupported_format",
    "no_audio",
    "empty_audio",
)
BadFiles = dict[str, tuple[bytes, str]]


def ffmpeg(*arguments: str | Path) -> None:
    """Runs it, quietly. Raises CalledProcessError."""
    subprocess.run(["ffmpeg", "-nostdin", "-y", "-v", "error", *map(str, arguments)], check=True)


def made(path: Path, *arguments: str | Path) -> bytes:
    """The file that ffmpeg makes of these arguments."""
    if not path.exists():
        ffmpeg(*arguments, path)
    return path.read_bytes()


def usual(folder: Path, wav: Path) -> BadFiles:
    """What goes wrong every week."""
    sound = wav.read_bytes()
    data = sound.index(b"data") + 8
    inside = str(wav).encode()
    return {
        "empty": (b"", EMPTY),
        "header only": (sound[:data], CUT),
        "half a header": (sound[:20], INVALID),
        "cut m4a": (made(folder / "cut.m4a", "-i", CLIP)[:20_000], CUT),
        "video without sound": (video(folder, "mute.mp4"), MUTE),
        "text": (b"Dear Sir, " * 500, INVALID),
        "html": (b"<html><body>404</body></html>", INVALID),
        "zeros": (bytes(50_000), INVALID),
        "playlist": (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n" + inside + b"\n#EXT-X-ENDLIST\n",
            FOREIGN,
        ),
        "concat": (b"ffconcat version 1.0\nfile '" + inside + b"'\n", FOREIGN),
        "subtitle": (b"1\n00:00:00,000 --> 00:00:01,000\nHej\n\n" * 50, FOREIGN),
        "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), FOREIGN),
    }


def video(folder: Path, name: str, *arguments: str) -> bytes:
    """A second of picture without sound."""
    return made(folder / name, "-f", "lavfi", "-i", "testsrc=d=1", "-pix_fmt", "yuv420p", *arguments)


def shortened(folder: Path, wav: Path) -> dict[str, tuple[bytes, float]]:
    """Recordings that lack their end, with the seconds of sound that they promise: what is there can be heard."""
    fast = made(folder / "cutfast.m4a", "-i", CLIP, "-movflags", "+faststart")
    webm = made(folder / "whole.webm", "-i", CLIP)
    sound = wav.read_bytes()
    data = sound.index(b"data") + 8
    return {
        "cut wav": (sound[: len(sound) // 2], SECONDS),
        "forged wav": (sound[: data - 4] + (0x7000_0000).to_bytes(4, "little") + sound[data:], 0x7000_0000 / 32_000),
        "cut fast m4a": (fast[:20_000], SECONDS),
        "cut mp3": (made(folder / "cut.mp3", "-i", CLIP)[:9_000], SECONDS),
        "cut flac": (made(folder / "cut.flac", "-i", CLIP)[:50_000], SECONDS),
        "cut webm": (webm[: len(webm) // 2], SECONDS),
        "wav that promises hours": (wave((1, 1, 16_000, 32_000, 2, 16), sound[44:20_044], 230_400_000), 7200.0),
    }


def all_of_them(folder: Path, wav: Path) -> BadFiles:
    """Every one that we know, more than sixty."""
    return (
        usual(folder, wav)
        | forged_waves(wav)
        | hollow(folder, wav)
        | mute(folder)
        | foreign(wav)
        | disguised(folder, wav)
    )


def wave(fmt: tuple[int, int, int, int, int, int], sound: bytes, size: int | None = None) -> bytes:
    """A WAV with these six fields of its fmt chunk: tag, channels, rate, byte rate, block, bits; `size` is what it
    promises of sound."""
    chunk = b"fmt " + struct.pack("<LHHLLHH", 16, *fmt)
    body = b"WAVE" + chunk + b"data" + struct.pack("<L", len(sound) if size is None else size) + sound
    return b"RIFF" + struct.pack("<L", len(body)) + body


def forged_waves(wav: Path) -> BadFiles:
    """Headers that promise what cannot be."""
    sound = wav.read_bytes()[44:20_044]
    whole = wave((1, 1, 16_000, 32_000, 2, 16), sound)
    return {
        "wav without a format": (b"RIFF" + struct.pack("<L", 12 + len(sound)) + b"WAVEdata" + whole[40:], INVALID),
        "wav without sound": (whole[:36], INVALID),
        "wav of no channels": (wave((1, 0, 16_000, 32_000, 2, 16), sound), INVALID),
        "wav of no rate": (wave((1, 1, 0, 0, 2, 16), sound), INVALID),
        "wav of 65535 channels": (wave((1, 65_535, 16_000, 32_000, 2, 16), sound), INVALID),
        "wav of an unknown codec": (wave((0x7777, 1, 16_000, 32_000, 2, 16), sound), INVALID),
        "wav of a negative rate": (wave((1, 1, 0xFFFF_FFFF, 32_000, 2, 16), sound), INVALID),
        "wav of 0 bits": (wave((1, 1, 16_000, 32_000, 2, 0), sound), INVALID),
        "wav that is a byte short of nothing": (whole[:43], INVALID),
    }


def hollow(folder: Path, wav: Path) -> BadFiles:
    """The beginning of a recording and nothing more, or the middle missing."""
    content = {
        name: made(folder / f"whole.{name}", "-i", CLIP) for name in ("flac", "ogg", "webm", "m4a", "mp3", "aiff", "au")
    }
    caf, w64 = made(folder / "whole.caf", "-i", wav), made(folder / "whole.w64", "-i", wav)
    m4a = content["m4a"]
    return {
        "flac header": (content["flac"][:42], INVALID),
        "flac of no rate": (content["flac"][:18] + bytes(3) + content["flac"][21:60], INVALID),
        "ogg first page": (content["ogg"][:58], INVALID),
        "webm header": (content["webm"][:60], INVALID),
        "m4a file type alone": (m4a[:32], CUT),
        "m4a index without sound": (m4a[:24] + m4a[m4a.rindex(b"moov") - 4 :], CUT),
        "id3 tag alone": (b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257), INVALID),
        "mp3 frame headers alone": (b"\xff\xfb\x90\x64" * 3, INVALID),
        "amr magic alone": (b"#!AMR\n", INVALID),
        "adts header alone": (b"\xff\xf1\x50\x80\x02\x1f\xfc", INVALID),
        "aiff header": (content["aiff"][:54], INVALID),
        "au header": (content["au"][:24], INVALID),
        "caf header": (caf[:60], INVALID),
        "w64 header": (w64[:104], INVALID),
        "one byte": (b"R", INVALID),
        "riff alone": (b"RIFF", INVALID),
    }


def mute(folder: Path) -> BadFiles:
    """Picture or text where sound should be."""
    (folder / "text.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHej\n\n")
    return {
        "mute mkv": (video(folder, "mute.mkv", "-c:v", "mpeg4"), MUTE),
        "mute mov": (video(folder, "mute.mov", "-c:v", "mpeg4"), MUTE),
        "mute avi": (video(folder, "mute.avi", "-c:v", "mpeg4"), MUTE),
        "mute ts": (video(folder, "mute.ts", "-c:v", "mpeg2video"), MUTE),
        "subtitles in a film's file": (made(folder / "text.mkv", "-i", folder / "text.srt"), MUTE),
    }


def foreign(wav: Path) -> BadFiles:
    """Files of other trades, and lists that name other files."""
    path, noise = str(wav), random.Random(1).randbytes(100_000)
    lists = {
        "remote playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "playlist of secrets": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "plain m3u": f"#EXTM3U\n#EXTINF:9,\n{path}\n",
        "pls": f"[playlist]\nFile1={path}\nNumberOfEntries=1\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{path}</BaseURL></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "cue sheet": f'FILE "{path}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "json": '{"file": "clip.wav"}',
        "xml": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "utf-16, whose first bytes look like MP3": "Kära lyssnare".encode("utf-16").decode("latin-1") * 50,
        "ffmpeg's metadata": ";FFMETADATA1\ntitle=Hej\n",
    }
    kinds = {name: (text.encode("latin-1"), "") for name, text in lists.items()}
    return kinds | {
        "pdf": (b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\n" * 20, ""),
        "zip": (b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + noise[:2000], ""),
        "elf": (b"\x7fELF\x02\x01\x01" + bytes(9) + noise[:2000], ""),
        "gif": (b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + bytes(20), ""),
        "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + noise[:2000], ""),
        "sqlite": (b"SQLite format 3\x00" + bytes(5000), ""),
        "noise": (noise, ""),
        "ones": (b"\xff" * 50_000, ""),
    }


def disguised(folder: Path, wav: Path) -> BadFiles:
    """Sound that is wrapped up, and sound without an end."""
    sound = wav.read_bytes()
    silence = made(folder / "long.flac", "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", str(LONGEST + 60))
    endless = bytearray(wave((7, 1, 8000, 8000, 1, 8), b"\xff" * 8000 * (LONGEST + 60)))
    endless[40:44] = b"\xff\xff\xff\xff"
    return {
        "gzip": (gzip.compress(sound), ""),
        "zlib": (zlib.compress(sound), ""),
        "base64": (base64.b64encode(sound), ""),
        "backwards": (sound[::-1], ""),
        "too long": (silence, "audio_too_long"),
        "too long without saying so": (bytes(endless), "audio_too_long"),
    }
