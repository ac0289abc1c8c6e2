"""Plain WAV is decoded without ffmpeg, and exactly as ffmpeg does; every other file is ffmpeg's."""

import os
from pathlib import Path

import numpy as np
import pytest
from support import bad_files
from support.bad_files import CLIP, ffmpeg
from support.decoding import SECONDS, DecodeLimits, decoded, refused
from transcribe.audio import wav
from transcribe.audio.decoder import Decoder
from transcribe.types import SAMPLE_RATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wav")


@pytest.mark.parametrize("rate", [8000, SAMPLE_RATE, 22_050, 44_100])
def test_plain_wav_is_what_ffmpeg_makes_of_it(folder: Path, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"{rate}.wav"
    ffmpeg("-i", CLIP, "-ar", str(rate), path)
    with Decoder(path, DecodeLimits()) as decoder:
        ours = np.concatenate(list(decoder))
        assert decoder.promised == pytest.approx(len(ours) / SAMPLE_RATE, abs=1e-3)
        assert decoder._ffmpeg is None
    monkeypatch.setattr(wav, "plain", lambda _path: None)
    theirs = decoded(path)
    assert len(ours) == pytest.approx(len(theirs), abs=SAMPLE_RATE // 100)
    both = min(len(ours), len(theirs))
    difference = ours[:both] - theirs[:both]
    assert np.sqrt(np.square(difference).mean()) < (
        1e-9 if rate == SAMPLE_RATE else 0.02 * np.sqrt(np.square(ours).mean())
    )


@pytest.mark.parametrize("arguments", [["-ac", "2"], ["-c:a", "pcm_s24le"], ["-c:a", "pcm_u8"], ["-c:a", "pcm_mulaw"]])
def test_other_wavs_are_ffmpegs(folder: Path, arguments: list[str]) -> None:
    path = folder / "other.wav"
    ffmpeg("-i", CLIP, *arguments, path)
    assert wav.plain(path) is None
    assert len(decoded(path)) > SECONDS * SAMPLE_RATE


FORM = (1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
NOISE = np.random.default_rng(0).integers(-9000, 9000, SAMPLE_RATE, np.int16).tobytes()
ODD = bad_files.wave(FORM, NOISE)
ODD_WAVS: dict[str, tuple[bytes, bool]] = {  # what it is, and whether it is plain all the same
    "wrong byte rate": (bad_files.wave((1, 1, SAMPLE_RATE, 7, 2, 16), NOISE), True),
    "frames of another size": (bad_files.wave((1, 1, SAMPLE_RATE, 32_000, 4, 16), NOISE), False),
    "12 bits": (bad_files.wave((1, 1, SAMPLE_RATE, 32_000, 2, 12), NOISE), False),
    "extensible": (bad_files.wave((0xFFFE, 1, SAMPLE_RATE, 32_000, 2, 16), NOISE), False),
    "wrong size of the whole": (ODD[:4] + bytes([36, 0, 0, 0]) + ODD[8:], True),
    "half a sample": (ODD[:40] + (len(NOISE) - 1).to_bytes(4, "little") + ODD[44:-1], True),
    "odd chunk before": (ODD[:36] + b"LIST\5\0\0\0hello\0" + ODD[36:], True),
    "chunk behind": (ODD + b"LIST\4\0\0\0INFO", True),
    "format twice": (ODD[:36] + b"fmt " + bytes([16, 0, 0, 0]) + ODD[20:36] + ODD[36:], False),
    "sound behind many chunks": (ODD[:36] + b"junk\0\0\0\0" * 1000 + ODD[36:], False),
}


@pytest.mark.parametrize("name", ODD_WAVS)
def test_odd_headers_give_what_ffmpeg_gives(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "odd-header.wav"
    content, plain = ODD_WAVS[name]
    path.write_bytes(content)
    assert (wav.plain(path) is not None) is plain
    ours = decoded(path) if plain else np.zeros(0, np.float32)
    monkeypatch.setattr(wav, "plain", lambda _path: None)
    assert not plain or np.array_equal(ours, decoded(path))


def test_sound_too_short_for_a_sample_is_refused(folder: Path) -> None:
    path = folder / "short.wav"
    path.write_bytes(bad_files.wave((1, 1, 192_000, 384_000, 2, 16), b"\1\0"))
    assert "no sound" in refused(path).message


def test_a_wav_that_shrinks_while_it_is_read_is_told_of(folder: Path) -> None:
    path = folder / "shrinking.wav"
    ffmpeg("-stream_loop", "9", "-i", CLIP, path)
    with Decoder(path, DecodeLimits()) as decoder:
        blocks = iter(decoder)
        next(blocks)
        os.truncate(path, 40 * SAMPLE_RATE)
        list(blocks)
    assert decoder.missing == pytest.approx(10 * 6.05 - 20, abs=0.5)
    assert "cut off" in decoder.warnings[0]
