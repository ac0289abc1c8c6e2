"""What kind of clock a recording has, by its first bytes."""

from pathlib import Path

from transcribe.audio import mp3
from transcribe.audio.timeline import Clock

HEAD_BYTES = 36
SYNCS = ((0xFF, 0xE0), (0x56, 0xE0))  # of MP3 and ADTS, and of LATM: a byte, and bits of the next that are set
STARTS = (b"\x0b\x77", b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8")  # AC-3, DTS
CODEC = 28  # where the name of the codec begins in the first page of Ogg


def clock_of(path: Path, begin: int = 0) -> Clock:
    """The kind of clock of the recording that begins at this byte of the file. Raises OSError."""
    with path.open("rb") as file:
        file.seek(begin or mp3.behind_tags(file, path.stat().st_size))
        head = file.read(HEAD_BYTES)
    if head.startswith(b"OggS"):
        return Clock.STAMPED if head[CODEC:] == b"OpusHead" else Clock.PACED  # Opus has one rate
    synced = len(head) > 1 and any(head[0] == first and head[1] & bits == bits for first, bits in SYNCS)
    return Clock.COUNTED if synced or head.startswith(STARTS) else Clock.STAMPED
