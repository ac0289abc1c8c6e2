"""Recordings with odd headers, clocks, tags, levels and tracks, made by support/odd_recordings.py: what is there is
found at the file's own times, and what is missing is said, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from support import odd_recordings
from support.bad_files import CLIP
from support.decoding import DecodeLimits, decoded
from support.heard import check
from support.recordings import Case, places
from transcribe.audio.recording import Recording
from transcribe.audio.vad import Vad

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


@pytest.fixture(scope="module")
def vad() -> Vad:
    return Vad.load()


@pytest.mark.parametrize("case", odd_recordings.CLOCKS, ids=lambda case: case.name)
def test_a_clock_of_any_kind_gives_the_files_times(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", odd_recordings.HEADERS, ids=lambda case: case.name)
def test_what_a_header_says_hides_no_sound(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", odd_recordings.LACKING, ids=lambda case: case.name)
def test_what_is_missing_is_said(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", odd_recordings.LEVELS, ids=lambda case: case.name)
def test_a_voice_is_found_wherever_it_is(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", odd_recordings.TRACKS, ids=lambda case: case.name)
def test_a_first_track_that_only_sounds_does_not_hide_the_second(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize("case", odd_recordings.JOINED, ids=lambda case: case.name)
def test_what_was_joined_to_a_recording_is_heard(case: Case, folder: Path, vad: Vad) -> None:
    check(case, folder, vad)


@pytest.mark.parametrize(("begin", "end", "lacks"), [(0.1213, 1, "its beginning"), (0, 0.5433, "its end")])
@pytest.mark.parametrize("form", odd_recordings.BARE)
def test_bare_frames_that_were_cut_are_heard_and_said_to_be(
    form: str, begin: float, end: float, lacks: str, folder: Path, vad: Vad
) -> None:
    path = odd_recordings.bare(folder, form, begin, end)
    with Recording(path, DecodeLimits(), vad) as recording:
        chunks = [chunk for step in recording for chunk in step]
    assert len(places(np.concatenate([chunk.audio for chunk in chunks]), decoded(CLIP))) == 1
    assert recording.warnings == [f"The file is cut off or damaged: {lacks} is missing."]
