"""How long a container says that its tracks are, as ffprobe tells it, and where its packets really end."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transcribe.audio import mp4, wav
from transcribe.audio.errors import Limits
from transcribe.audio.ffmpeg import probe, probe_lines

HEAD_BYTES, FLAC_BYTES = 4096, 26
SOX, SOX_BYTES = {b".SoX": "<", b"XoS.": ">"}, 28
UNKNOWN_CAF = b"data" + b"\xff" * 8
STREAMS = "stream=codec_type,duration,start_time:stream_disposition=attached_pic"
CONTAINER = "format=format_name,duration,start_time"


@dataclass(frozen=True)
class Promise:
    """`track` is the second, counted from the container's start, at which the sound track should end; `container` that
    at which the last of its streams should. None where the file does not say."""

    track: float | None = None
    container: float | None = None


def promise(path: Path, limits: Limits, track: int) -> Promise:
    """What the container's headers promise of the sound track with this number."""
    found = probe(path, limits, CONTAINER, STREAMS)
    if not found or b"Estimating duration" in found["log"]:  # from the size of the file: that is no promise
        return Promise()
    container, streams = found.get("format", {}), found.get("streams", [])
    begin = 0.0 if mp4.begins_late(path) else _number(container.get("start_time")) or 0.0
    whole = _number(container.get("duration"))
    if whole is not None and "matroska" in container.get("format_name", ""):
        whole -= begin  # counted from 0, whatever the first timestamp is
    sounds = _sounds(found)
    own = _number(sounds[track].get("duration")) if track < len(sounds) else None
    if own is not None:
        return Promise((_number(sounds[track].get("start_time")) or begin) - begin + own, whole)
    timed = [stream for stream in streams if stream.get("codec_type") in ("audio", "video") and not _picture(stream)]
    return Promise(whole if len(timed) == 1 else None, whole)


def last_packet(path: Path, limits: Limits) -> float:
    """Where the last packet of any stream ends, in seconds from the container's start; 0 if there is none."""
    start = _number(probe(path, limits, "format=start_time").get("format", {}).get("start_time")) or 0.0
    last = start
    for line in probe_lines(path, limits, "packet=pts_time,dts_time,duration_time"):
        shown, decoded, length = (_number(figure) for figure in (*line.split(b","), b"", b"", b"")[:3])
        at = decoded if shown is None else shown
        last = max(last, (at or 0.0) + (length or 0.0))
    return last - start


def by_header(head: bytes) -> float | None:
    """The seconds that a FLAC or SoX file promises, by its first bytes; None for another, and where it does not say."""
    if head[:4] in SOX and len(head) >= SOX_BYTES:
        samples, rate, channels = struct.unpack(f"{SOX[head[:4]]}QdL", head[8:SOX_BYTES])
        return samples / channels / rate if samples and channels and rate > 0 else None
    if head[:4] != b"fLaC" or len(head) < FLAC_BYTES:
        return None
    rate = int.from_bytes(head[18:21], "big") >> 4
    samples = int.from_bytes(head[21:26], "big") & (1 << 36) - 1
    return samples / rate if samples and rate else None


def open_ended(path: Path) -> bool:
    """Whether the file's header does not say where its sound ends, since nobody could know it. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return (head[:4] == b"caff" and UNKNOWN_CAF in head) or wav.open_ended(path)


def exceeds(path: Path, limits: Limits, track: int) -> bool:
    """Whether the packets of a sound track last longer than a recording may, whatever a header says."""
    seconds = 0.0
    for line in probe_lines(path, limits, "packet=duration_time", "-select_streams", f"a:{track}"):
        seconds += _number(line.strip().strip(b",")) or 0.0
        if seconds > limits.audio_seconds:
            return True
    return False


def _sounds(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [stream for stream in found.get("streams", []) if stream.get("codec_type") == "audio"]


def _picture(stream: dict[str, Any]) -> bool:
    return bool(stream.get("disposition", {}).get("attached_pic"))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
