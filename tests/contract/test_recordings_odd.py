"""Recordings with odd headers, clocks, tags, levels and tracks, made by support/odd_recordings.py: what is there is
found at the file's own times, and what is missing is said, and nothing else."""

from pathlib import Path

import pytest
from support import odd_recordings
from support.heard import check
from support.recordings import Case
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
