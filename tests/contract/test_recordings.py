"""Recordings as people's programs make them: what is there is decoded, at the file's own times, and what is missing is
said. The files are made by support/recordings.py."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support import recordings
from support.bad_files import CLIP
from support.decoding import DecodeLimits, refused
from support.heard import check
from support.recordings import Case
from transcribe.audio.recording import Recording
from transcribe.audio.vad import Vad

pytestmark = pytest.mark.slow
BLIP = 0.25  # seconds that the detector may err by in a minute: it takes the beginning of a hum for a sound of speech


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def vad() -> Vad:
    return Vad.load()


@pytest.mark.parametrize("case", recordings.LENGTHS, ids=lambda case: case.name)
def test_length_is_that_of_the_sound(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", recordings.TIMES, ids=lambda case: case.name)
def test_times_are_the_files(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", recordings.FORMATS, ids=lambda case: case.name)
def test_every_promised_format_is_read(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", recordings.LEVELS, ids=lambda case: case.name)
def test_quiet_speech_is_found_as_loud_speech_is(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", recordings.POLARITIES, ids=lambda case: case.name)
def test_channels_of_opposite_polarity_do_not_cancel(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", recordings.TRACKS, ids=lambda case: case.name)
def test_the_track_that_speaks_is_used_and_the_others_are_named(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "ogg", "opus", "m4a", "webm"])
def test_a_twentieth_of_a_second_is_a_recording_in_every_format(form: str, folder: Path, vad: Vad) -> None:
    path = recordings.made(folder, f"brief.{form}", "-ss", "1", "-t", "0.05", "-i", CLIP).rename(folder / "upload")
    with Recording(path, DecodeLimits(), vad) as recording:
        list(recording)
    assert 0.04 < recording.seconds < 0.2
    assert recording.warnings == []


PICTURES = {"png": "picture", "jpg": "picture", "gif": "picture", "webp": "picture", "bmp": "picture"}
PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.ts\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\nhttp://127.0.0.1:9/a.mp3\n",
    "pls": "[playlist]\nFile1=a.mp3\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>a.mp4</BaseURL></MPD>',
    "ffconcat": "ffconcat version 1.0\nfile 'a.wav'\n",
    "m3u with a byte order mark": "\ufeff#EXTM3U\nhttp://127.0.0.1:9/a.mp3\n",
    "wpl": '<?wpl version="1.0"?>\n<smil><body><seq><media src="a.mp3"/></seq></body></smil>',
    "smil": '<?xml version="1.0"?>\n<!DOCTYPE smil PUBLIC "-//W3C//DTD SMIL 2.0//EN" "a.dtd">\n<smil><body/></smil>',
    "xspf": '<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList/></playlist>',
    "references of Windows Media": "[Reference]\r\nRef1=http://127.0.0.1:9/a.asf\r\n",
    "cue sheet": 'REM GENRE Talk\r\nTITLE "A"\r\nFILE "a.wav" WAVE\r\n  TRACK 01 AUDIO\r\n    INDEX 01 00:00:00\r\n',
    "addresses alone": "# radio\r\nhttps://radio.example/live\r\n",
    "names of files alone": "Intro.mp3\nC:\\Musik\\Möte 2.WAV\n",
    "an internet shortcut": "[InternetShortcut]\r\nURL=https://radio.example/a.mp3\r\n",
    "smooth streaming": '<?xml version="1.0"?>\n<SmoothStreamingMedia MajorVersion="2"/>',
    "cue sheet without a title": "FILE a.mp3 MP3\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n",
    "asx": "<asx version='3.0'><entry><ref href='a.wma'/></entry></asx>",
}


@pytest.mark.parametrize("form", PICTURES)
def test_a_picture_is_named_as_one(form: str, folder: Path) -> None:
    shown = ("-f", "lavfi", "-i", "testsrc=s=64x48", "-frames:v", "1")
    error = refused(recordings.made(folder, f"shown.{form}", *shown).rename(folder / "upload"))
    assert (error.code, error.message) == ("unsupported_format", "the file is a picture")


@pytest.mark.parametrize("brand", ["heic", "mif1", "avif", "crx "])
def test_a_picture_that_is_built_as_a_film_is_named_as_one(brand: str, folder: Path) -> None:
    head = b"\0\0\0\x18ftyp" + brand.encode() + bytes(4) + b"mif1heic\0\0\0\x08free"
    error = refused(recordings.written(folder, "upload", head + bytes(2000)))
    assert (error.code, error.message) == ("unsupported_format", "the file is a picture")


@pytest.mark.parametrize("suffix", ["zip", "gztar", "bztar", "xztar"])
def test_an_archive_is_named_as_one(suffix: str, folder: Path) -> None:
    path = Path(shutil.make_archive(str(folder / "a"), suffix, CLIP.parent, CLIP.name))
    error = refused(path.rename(folder / "upload"))
    assert (error.code, error.message) == (
        "unsupported_format",
        "the file is an archive: send the recording that is in it",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("form", PLAYLISTS)
def test_a_playlist_is_named_as_one(form: str, encoding: str, folder: Path) -> None:
    error = refused(recordings.written(folder, "upload", PLAYLISTS[form].encode(encoding)))
    assert (error.code, error.message) == (
        "unsupported_format",
        "the file is a playlist: send the recording that it names",
    )


NOISES: dict[str, recordings.Change] = {
    "silence": lambda clip: 0 * clip,
    "hiss": recordings.hiss,
    "hum": recordings.hum,
    "hum and hiss": lambda clip: recordings.hum(clip) + 0.05 * recordings.hiss(clip),
    "swelling hiss": lambda clip: recordings.hiss(clip) * (1 + np.sin(np.arange(len(clip)) / 640)),
    "music": recordings.music,
}


@pytest.mark.parametrize("level", [-65, -20])
@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_not_made_speech_of_whatever_its_level(noise: str, level: float, folder: Path, vad: Vad) -> None:
    def change(clip: recordings.Samples) -> recordings.Samples:
        made = NOISES[noise](np.tile(clip, 10))
        return recordings.loud(level)(made) if made.any() else made

    path = recordings.waved(folder, "noise.wav", change)
    with Recording(path, DecodeLimits(), vad) as recording:
        taken = sum(chunk.speech_seconds for step in recording for chunk in step)
    assert taken < BLIP
