"""The detector gives the published network's own numbers, whatever the blocks are."""

import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transcribe.audio import cores
from transcribe.audio.chunking import FRAME, VadError
from transcribe.audio.vad import CONTEXT, Vad, weights_path

CLIP = Path(__file__).resolve().parents[2] / "audio" / "austen-0920.flac"


@pytest.fixture(scope="module")
def vad() -> Vad:
    return Vad.load()


@pytest.fixture(scope="module")
def clip() -> NDArray[np.float32]:
    command = ["ffmpeg", "-v", "error", "-i", str(CLIP), "-f", "f32le", "-ac", "1", "-ar", "16000", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)


def test_the_numbers_are_those_of_silero(vad: Vad, clip: NDArray[np.float32]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = torch.jit.load(str(weights_path())).eval()  # type: ignore[no-untyped-call]
    frames = clip[: len(clip) // FRAME * FRAME].reshape(-1, FRAME)
    with torch.inference_mode():
        expected = [theirs(torch.from_numpy(frame.copy()), 16_000).item() for frame in frames]
    found = vad.stream().push(frames.reshape(-1))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.max() > 0.9
    assert found.min() < 0.1


@pytest.mark.parametrize("block", [100, 512, 7001])
def test_blocks_of_any_size_give_the_same(vad: Vad, clip: NDArray[np.float32], block: int) -> None:
    whole, parts = vad.stream(), vad.stream()
    expected = np.concatenate([whole.push(clip), whole.flush()])
    pushed = [parts.push(clip[at : at + block]) for at in range(0, len(clip), block)]
    found = np.concatenate([*pushed, parts.flush()])
    assert len(found) == -(-len(clip) // FRAME)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_long_block_on_idle_cores_gives_the_same(
    vad: Vad, clip: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = np.tile(clip, 6)
    pieces = vad.stream()
    expected = np.concatenate([pieces.push(long[at : at + len(clip)]) for at in range(0, len(long), len(clip))])
    monkeypatch.setattr(cores, "idle", lambda: 3)
    np.testing.assert_allclose(vad.stream().push(long), expected, atol=1e-4)


@pytest.mark.parametrize("length", [0, 1, CONTEXT, FRAME - 1, FRAME, FRAME + 1])
def test_the_shortest_recordings_have_a_frame_for_all_they_hold(vad: Vad, length: int) -> None:
    stream = vad.stream()
    scores = np.concatenate([stream.push(np.zeros(length, np.float32)), stream.flush()])
    assert len(scores) == -(-length // FRAME)
    assert (scores < 0.1).all()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(VadError, match="silero-vad"):
        weights_path()
