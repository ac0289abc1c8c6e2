"""Decoding with the real ffmpeg: what people send is decoded, what is no recording is refused with its reason."""

import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from support import bad_files
from support.bad_files import CLIP, ffmpeg
from support.decoding import SECONDS, DecodeLimits, decoded, refused
from transcribe.audio import ffmpeg as ffmpeg_process
from transcribe.audio.decoder import Decoder, decode
from transcribe.audio.errors import DecoderError
from transcribe.types import SAMPLE_RATE

MIB = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audio")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    path = folder / "clip.wav"
    ffmpeg("-i", CLIP, path)
    return path


FORMATS: list[tuple[str, list[str]]] = [
    ("clip.wav", []),
    ("float.wav", ["-c:a", "pcm_f32le"]),
    ("alaw.wav", ["-c:a", "pcm_alaw", "-ar", "8000"]),
    ("clip.mp3", []),
    ("clip.m4a", []),  # its index (moov) trails
    ("fast.m4a", ["-movflags", "+faststart"]),
    ("clip.ogg", ["-c:a", "libvorbis"]),
    ("clip.opus", ["-c:a", "libopus"]),
    ("clip.flac", []),
    ("clip.webm", ["-c:a", "libopus"]),
    ("clip.mp4", ["-c:a", "aac"]),
    ("clip.aac", []),
    ("clip.amr", ["-c:a", "amr_nb", "-ar", "8000"]),
    ("six.wav", ["-ac", "6"]),
    ("odd.wav", ["-ar", "11025"]),
    ("high.flac", ["-ar", "96000", "-ac", "2"]),
    ("clip.aiff", []),
    ("clip.wma", []),
]


@pytest.mark.parametrize(("name", "arguments"), FORMATS, ids=[name for name, _ in FORMATS])
def test_what_people_send_is_heard(folder: Path, clip: Path, name: str, arguments: list[str]) -> None:
    path = folder / name
    if name.endswith(".amr"):
        encoder = subprocess.run(["ffmpeg", "-v", "error", "-encoders"], capture_output=True, text=True, check=True)
        if "amr" not in encoder.stdout:  # Debian's ffmpeg reads AMR but does not write it
            path.write_bytes(b"#!AMR\n" + (b"\x3c" + bytes(31)) * 350)
            assert len(decoded(path)) / SAMPLE_RATE == pytest.approx(7.0, abs=0.1)
            return
    if path != clip:
        ffmpeg("-i", CLIP, *arguments, path)
    found, reference = decoded(path), decoded(clip)
    assert found.dtype == np.float32
    assert len(found) == pytest.approx(len(reference), abs=0.2 * SAMPLE_RATE)
    assert np.abs(found).max() <= 1.0
    assert np.sqrt(np.square(found).mean()) == pytest.approx(np.sqrt(np.square(reference).mean()), rel=0.35)


def test_what_may_not_be_read_is_refused_in_one_line(folder: Path) -> None:
    assert "cannot be read" in refused(folder).message
    assert "cannot be read" in refused(folder / "none").message


def test_the_name_does_not_matter(folder: Path) -> None:
    path = folder / "0123456789abcdef"
    path.write_bytes(CLIP.read_bytes())
    assert len(decoded(path)) > SECONDS * SAMPLE_RATE
    odd = folder / "-i file:%d'\n.wav"
    odd.write_bytes(CLIP.read_bytes())
    assert len(decoded(odd)) > SECONDS * SAMPLE_RATE


def test_a_video_gives_its_sound(folder: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=3", "-i", CLIP, "-shortest", folder / "video.mp4")
    assert len(decoded(folder / "video.mp4")) == pytest.approx(3 * SAMPLE_RATE, rel=0.05)


def test_a_wav_from_a_recorder_that_cannot_seek_is_whole(folder: Path, clip: Path) -> None:
    for size in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"):
        content = bytearray(clip.read_bytes())
        at = content.index(b"data") + 4
        content[at : at + 4] = size
        path = folder / "streamed.wav"
        path.write_bytes(content)
        assert len(decoded(path)) == len(decoded(clip))


def test_not_a_number_does_not_reach_the_model(folder: Path) -> None:
    signal = np.full(SAMPLE_RATE, 7.0, "<f4")
    signal[::2], signal[1000] = np.nan, np.inf
    (folder / "raw").write_bytes(signal.tobytes())
    ffmpeg("-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1", "-i", folder / "raw", "-c", "copy", folder / "n.wav")
    found = decoded(folder / "n.wav")
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1.0


@pytest.mark.slow
def test_blocks_come_as_they_are_decoded(folder: Path) -> None:
    """An hour of silence is 1 MB of FLAC and 230 MB of samples; they must not be in memory at once."""
    path = folder / "hours.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "3600", path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(len(block) for block in decode(path, DecodeLimits()))
    assert total == 3600 * SAMPLE_RATE
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 100 * MIB


def test_what_is_no_recording_is_refused_with_its_reason(folder: Path, clip: Path) -> None:
    found = {}
    for name, (content, _) in (files := bad_files.usual(folder, clip)).items():
        path = folder / "upload"
        path.write_bytes(content)
        found[name] = refused(path).code
    assert found == {name: code for name, (_, code) in files.items()}


def test_of_a_recording_that_lacks_its_end_the_rest_is_decoded(folder: Path, clip: Path) -> None:
    path = folder / "shortened"
    for name, (content, promised) in bad_files.shortened(folder, clip).items():
        path.write_bytes(content)
        with Decoder(path, DecodeLimits()) as decoder:
            seconds = sum(map(len, decoder)) / SAMPLE_RATE
        assert seconds > 0.5, name
        assert decoder.missing == pytest.approx(promised - seconds, abs=0.2), name
        assert "cut off" in decoder.warnings[0], name


def test_text_that_begins_like_mp3_is_no_recording(folder: Path) -> None:
    path = folder / "utf-16"
    path.write_bytes("Kära lyssnare".encode("utf-16") * 50)
    assert refused(path).code == "invalid_audio"


@pytest.mark.slow
def test_too_long_is_refused_before_it_is_decoded(folder: Path) -> None:
    path = folder / "long.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "7200", path)
    began = time.monotonic()
    error = refused(path, DecodeLimits(audio_seconds=3600))
    assert (error.code, error.status) == ("audio_too_long", 413)
    assert time.monotonic() - began < 1.0


def test_too_long_is_noticed_while_decoding_if_no_header_says_it(folder: Path, clip: Path) -> None:
    content = bytearray(clip.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path = folder / "streamed-long.wav"
    path.write_bytes(content)
    assert refused(path, DecodeLimits(audio_seconds=2)).code == "audio_too_long"


def test_memory_is_limited_and_too_low_a_limit_is_not_the_recordings_fault() -> None:
    with (
        pytest.raises(DecoderError, match="ffmpeg cannot be run"),
        Decoder(CLIP, DecodeLimits(decode_bytes=200 * MIB)) as decoder,
    ):
        list(decoder)


def test_a_decoder_that_hangs_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg_process, "_command", lambda *_: ["sleep", "1000"])
    monkeypatch.setattr(ffmpeg_process, "cpu_seconds", lambda _: 1000.0)  # as one that works all the time
    monkeypatch.setattr(ffmpeg_process, "STALL_SECONDS", 0.5)
    (folder / "any").write_bytes(b"x")
    began = time.monotonic()
    assert "too long" in refused(folder / "any").message
    assert time.monotonic() - began < 5


def test_a_decoder_that_needs_more_processor_time_than_it_may_have_gives_no_half_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg_process.Ffmpeg, "_check_pace", lambda _: None)
    path = folder / "slow.flac"
    noise = ("-f", "lavfi", "-i", "anoisesrc=r=192000:d=300")
    ffmpeg(*noise, "-c:a", "flac", "-compression_level", "0", path)
    assert "of processor time" in refused(path, DecodeLimits(decode_seconds=0.5)).message


def test_the_decoder_dies_when_nobody_wants_more() -> None:
    with Decoder(CLIP, DecodeLimits()) as decoder:
        next(iter(decoder))
        assert decoder._ffmpeg is not None
        process = decoder._ffmpeg._process
    assert process.returncode is not None
