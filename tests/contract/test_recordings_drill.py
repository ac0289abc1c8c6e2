"""Drill: recordings of every container, codec, rate, layout, start and length that go together, by chance. Short here;
`DRILLS=long` makes a thousand. What ffmpeg can make must be decoded, at its own time; the figures are printed."""

import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support import recordings
from support.bad_files import CLIP
from support.decoding import DecodeLimits, decoded
from support.recordings import AAC, FLAC, MP3, MPEG2, MPEG4, OPUS, VP8, places
from transcribe.audio.decoder import AudioError, Decoder

pytestmark = pytest.mark.drill
FILES = 1000 if os.environ.get("DRILLS") == "long" else 10
PCM = [("-c:a", f"pcm_{kind}") for kind in ("s16le", "s24le", "s32le", "f32le", "u8", "alaw", "mulaw")]
CODECS: dict[str, list[tuple[str, ...]]] = {  # by container
    "wav": [*PCM, ("-c:a", "adpcm_ms"), ("-c:a", "adpcm_ima_wav"), MP3],
    "mka": [*PCM[:4], AAC, MP3, OPUS, FLAC, ("-c:a", "libvorbis"), ("-c:a", "ac3"), ("-c:a", "wavpack")],
    "mkv": [AAC, MP3, OPUS, FLAC, ("-c:a", "libvorbis"), ("-c:a", "eac3")],
    "webm": [OPUS, ("-c:a", "libvorbis")],
    "m4a": [AAC, ("-c:a", "alac")],
    "mp4": [AAC, MP3, OPUS, FLAC, ("-c:a", "ac3")],
    "mov": [AAC, *PCM[:2], ("-c:a", "alac")],
    "ts": [AAC, MP3, OPUS, ("-c:a", "ac3"), ("-c:a", "mp2")],
    "avi": [MP3, PCM[0], ("-c:a", "ac3"), ("-c:a", "adpcm_ms")],
    "ogg": [("-c:a", "libvorbis"), OPUS, FLAC, ("-c:a", "libspeex")],
    "nut": [FLAC, AAC, PCM[0]],
    **{
        form: [made_by] for form, made_by in recordings.FORMS.items() if form not in ("wav", "mka", "webm", "m4a", "ts")
    },
}
PICTURES = {"mkv": MPEG4, "webm": VP8, "mp4": MPEG4, "mov": MPEG4, "ts": MPEG2}
RATES = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)
CHANNELS = (1, 2, 6)


def made(folder: Path, chance: random.Random) -> tuple[str, Path | None, float]:
    """What was tried, the file if ffmpeg can make it, and where the clip begins in it."""
    form = chance.choice(sorted(CODECS))
    codec, rate, channels = chance.choice(CODECS[form]), chance.choice(RATES), chance.choice(CHANNELS)
    length, late = chance.choice(("2.6", "6.05", "20")), chance.choice((0.0, 0.7, 3.0)) if form in PICTURES else 0.0
    sampled = () if "-ar" in codec else ("-ar", str(rate))
    name = f"{form} {' '.join(codec)} {rate} Hz {channels} channels {length} s, {late} s late"
    shown = ("-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=4") if late else ()
    sound = ("-itsoffset", str(late), "-stream_loop", "4", "-t", length, "-i", CLIP)
    picture = PICTURES[form] if late else ()
    try:
        return (
            name,
            recordings.made(folder, f"drill.{form}", *shown, *sound, *picture, *codec, *sampled, "-ac", str(channels)),
            late,
        )
    except subprocess.CalledProcessError:
        return name, None, late


def judged(path: Path, late: float) -> str:
    """'right', or what is wrong."""
    try:
        with Decoder(path.rename(path.parent / "upload"), DecodeLimits()) as decoder:
            blocks = list(decoder)
    except AudioError as error:
        return error.message
    found = places(recordings.joined_blocks(blocks), decoded(CLIP))
    if not found or abs(found[0] - late) > 0.15:
        return f"the clip begins at {found[:1]}"
    return "right" if not decoder.warnings else decoder.warnings[0]


def test_recordings_of_every_kind_are_decoded_at_their_own_time(tmp_path: Path) -> None:
    chance, ends, wrong = random.Random(2026), Counter[str](), list[str]()
    while ends["right"] + len(wrong) < FILES:
        name, path, late = made(tmp_path, chance)
        end = judged(path, late) if path else "ffmpeg does not make it"
        ends[end] += 1
        if end != "right" and path:
            wrong.append(f"{name}: {end}")
    print(f"{FILES} made: {dict(ends)}")
    assert wrong == []
