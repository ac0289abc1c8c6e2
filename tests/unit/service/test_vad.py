"""The detector gives the published network's own numbers, whatever the blocks are."""

import subprocess
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.worker_fixture import ServiceFixture
from transcribe.audio import cores
from transcribe.audio.chunking import FRAME, VadError
from transcribe.audio.vad import CONTEXT, Vad, weights_path
from transcribe.engine import Engine
from transcribe.engine.cpu.library import Library
from transcribe.engine.decode.scheduler import Scheduler
from transcribe.model_cache import cache_info, fetch
from transcribe.worker import main as startup

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


def engine(library: Library | None) -> Engine:
    """One without a model."""
    scheduler = cast(Scheduler, SimpleNamespace(library=library))
    return Engine(scheduler, device="cpu", torch_dtype="torch.int8", facts={"word_times": False})


@pytest.fixture(scope="module")
def loud(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    """Speech, and noise up to what a recording can hold: almost a thousand frames."""
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, 400 * FRAME).astype(np.float32)
    return np.concatenate([clip, noise, clip, noise * 0.05])


@pytest.mark.parametrize("block", [1 << 30, FRAME, 7001])
def test_the_kernel_gives_what_torch_does(vad: Vad, loud: NDArray[np.float32], kernels: Library, block: int) -> None:
    compiled = Vad(weights_path(), engine(kernels).recurrence).stream()
    found = np.concatenate([compiled.push(loud[at : at + block]) for at in range(0, len(loud), block)])
    np.testing.assert_allclose(found, vad.stream().push(loud), atol=1e-4)


def test_threads_share_the_kernel(vad: Vad, loud: NDArray[np.float32], kernels: Library) -> None:
    compiled = Vad(weights_path(), engine(kernels).recurrence)
    recordings = [loud, loud[::-1].copy(), loud * 0.1, np.roll(loud, 99 * FRAME)]
    with ThreadPoolExecutor(len(recordings)) as pool:
        together = list(pool.map(lambda samples: compiled.stream().push(samples), recordings))
    for samples, found in zip(recordings, together, strict=True):
        np.testing.assert_allclose(found, vad.stream().push(samples), atol=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_worker_searches_with_the_engines_kernel_if_it_has_one(
    service: ServiceFixture, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    library: Library | None = request.getfixturevalue("kernels") if compiled else None
    ran: list[str] = []
    original: Callable[..., None] = Library.run

    def run(self: Library, name: str, *arguments: int) -> None:
        ran.append(name)
        original(self, name, *arguments)

    info = SimpleNamespace(speakers=None)
    monkeypatch.setattr(Library, "run", run)
    monkeypatch.setattr(fetch, "verified_cache", lambda *_, **__: info)
    monkeypatch.setattr(cache_info, "verify", lambda *_, **__: None)
    monkeypatch.setattr(cache_info, "snapshot_dir", lambda _: Path("model"))
    monkeypatch.setattr(Engine, "load", lambda *_, **__: engine(library))
    startup.load(service.config).vad.stream().push(np.zeros(FRAME, np.float32))
    assert ran == (["recurrence"] if compiled else [])
