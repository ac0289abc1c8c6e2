"""Recordings as people's programs make them: what is there is decoded, at the file's own times, and what is missing is
said. The files are made by support/recordings.py."""

from pathlib import Path

import numpy as np
import pytest
from support import recordings
from support.bad_files import CLIP
from support.decoding import DecodeLimits, decoded
from support.recordings import Case, places
from transcribe.audio.recording import Recording
from transcribe.audio.vad import Vad
from transcribe.types import SAMPLE_RATE

LATE = 0.1  # seconds that a time may be off


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def vad() -> Vad:
    return Vad.load()


def check(case: Case, folder: Path, vad: Vad) -> None:
    path = case.make(folder).rename(folder / "upload")  # the service keeps no name
    with Recording(path, DecodeLimits(), vad) as recording:
        chunks = [chunk for step in recording for chunk in step]
    spoken = np.zeros(int((recording.seconds + 1) * SAMPLE_RATE), np.float32)
    for chunk in chunks:
        at = round(chunk.start * SAMPLE_RATE)
        spoken[at : at + len(chunk.audio)] = chunk.audio
    assert places(spoken, decoded(CLIP)) == pytest.approx(list(case.starts), abs=LATE)
    assert chunks[0].speech[0][0] == pytest.approx(case.starts[0] + 0.25, abs=0.3)
    assert case.warning in " ".join(recording.warnings)
    assert bool(case.warning) == bool(recording.warnings)
    assert recording.missing == pytest.approx(case.missing or 0.0, abs=0.2)


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
