"""The service's decoder, applied to a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transcribe.audio.decoder import AudioError, decode

SECONDS = 6.0  # at least, of the clip


@dataclass(frozen=True)
class DecodeLimits:
    audio_seconds: float = 14_400
    decode_seconds: float = 600
    decode_bytes: int = 512 * (1 << 20)


def decoded(path: Path, limits: DecodeLimits | None = None) -> NDArray[np.float32]:
    return np.concatenate([*decode(path, limits or DecodeLimits()), np.zeros(0, np.float32)])


def refused(path: Path, limits: DecodeLimits | None = None) -> AudioError:
    with pytest.raises(AudioError) as caught:
        decoded(path, limits)
    assert 400 <= caught.value.status < 500
    assert "\n" not in caught.value.message
    assert str(path.parent) not in caught.value.message  # nothing of the server's own places
    return caught.value
