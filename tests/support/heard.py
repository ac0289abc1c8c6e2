"""Whether a recording is found to hold what its table says."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transcribe.audio.recording import Recording
from transcribe.audio.vad import Vad
from transcribe.types import SAMPLE_RATE

from support.bad_files import CLIP
from support.decoding import DecodeLimits, decoded
from support.recordings import Case, places

LATE = 0.1  # seconds that a time may be off


@cache
def clip() -> NDArray[np.float32]:
    """The clip as the service decodes it."""
    return decoded(CLIP)


def check(case: Case, folder: Path, vad: Vad) -> None:
    path = case.make(folder).rename(folder / "upload")  # the service keeps no name
    with Recording(path, DecodeLimits(), vad) as recording:
        chunks = [chunk for step in recording for chunk in step]
    spoken = np.zeros(int((recording.seconds + 1) * SAMPLE_RATE), np.float32)
    for chunk in chunks:
        at = round(chunk.start * SAMPLE_RATE)
        spoken[at : at + len(chunk.audio)] = chunk.audio
    assert places(spoken, clip()) == pytest.approx(list(case.starts), abs=LATE)
    assert chunks[0].speech[0][0] == pytest.approx(case.starts[0] + 0.25, abs=0.3)
    assert case.warning in " ".join(recording.warnings)
    assert bool(case.warning) == bool(recording.warnings)
    assert recording.missing == pytest.approx(case.missing or 0.0, abs=0.2)
