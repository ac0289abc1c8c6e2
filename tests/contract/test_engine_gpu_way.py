"""The way in which the engine works on a GPU, with a real small model on the processor: windows are encoded and join
together, steps are replayed, and memory runs out. A graph's capture is emulated."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from localcloud.hub.models import model_dir
from numpy.typing import NDArray
from support import graph_memory
from support.torch_kernels import TorchKernels
from transcribe.engine import Chunk, ChunkResult, Engine
from transcribe.engine.cuda import encoding, graphs, rows
from transcribe.engine.cuda.audio_cache import ByteCache
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.scheduler import Scheduler
from transcribe.engine.model import whisper
from transcribe.engine.model.network import Encoder
from transcribe.engine.model.whisper import Model
from transcribe.types import DecodeOptions, Word

AUDIO = Path(__file__).resolve().parents[1] / "audio"
ENGLISH = DecodeOptions(language="en", words=True)
ROWS, WINDOWS = 4, 4

pytestmark = pytest.mark.model

RECORDER = graphs.recorder(TorchKernels())


@pytest.fixture(scope="module")
def model() -> Model:
    with torch.inference_mode():
        return whisper.load(model_dir("whisper-tiny.en"), device="cpu", dtype="float32")[0]


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    graph_memory.emulate(monkeypatch)


def clips() -> list[NDArray[np.float32]]:
    parts = [soundfile.read(path, dtype="float32")[0] for path in sorted(AUDIO.glob("*.flac"))]
    return [*parts[:2], np.concatenate(parts)[: 20 * 16_000]]  # the last is encoded as a whole window


@torch.inference_mode()
def engine_of(model: Model, rows: int = ROWS, recorder: graphs.Recorder = RECORDER) -> Engine:
    scheduler = Scheduler(model, rows, windows=WINDOWS, prepare=lambda batch: graphs.record(batch, recorder(batch)))
    facts = {"word_times": True, "steps": {"recorded": True}}
    return Engine(scheduler, device="cpu", torch_dtype="torch.float32", facts=facts)


def texts(results: list[ChunkResult]) -> list[str]:
    return ["".join(segment.text for segment in result.segments) for result in results]


def times(words: Sequence[Word]) -> list[float]:
    return [time for word in words for time in (word.start, word.end)]


@pytest.fixture(scope="module")
def alone(model: Model) -> list[ChunkResult]:
    """Each clip by itself."""
    with pytest.MonkeyPatch.context() as patch:
        graph_memory.emulate(patch)
        engine = engine_of(model)
        return [engine.transcribe([Chunk(None, audio, ENGLISH)])[0] for audio in clips()]


def test_what_is_encoded_and_joins_together_says_what_it_says_alone(
    model: Model, alone: list[ChunkResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = Encoder.__call__

    def counted(self: Encoder, mel: torch.Tensor) -> torch.Tensor:
        encoded.append(len(mel))
        return encode(self, mel)

    monkeypatch.setattr(Encoder, "__call__", counted)
    engine = engine_of(model)
    together = engine.transcribe([Chunk(None, audio, ENGLISH) for audio in clips() * 2])
    assert max(encoded) == WINDOWS
    assert texts(together) == texts(alone) * 2
    for found, expected in zip(together, [*alone, *alone], strict=True):
        for one, other in zip(found.segments, expected.segments, strict=True):
            assert one.words
            assert other.words
            assert [word.word for word in one.words] == [word.word for word in other.words]
            assert times(one.words) == pytest.approx(times(other.words), abs=0.021)
    steps = engine.steps
    assert (steps["plain"], steps["failed_captures"], steps["out_of_memory"]) == (0, 0, 0)
    assert steps["recorded"] > 20


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, BaseException], None]:
    """Lets a method of the batch raise at its so manieth call."""

    def arrange(name: str, when: int, error: BaseException) -> None:
        calls: Iterator[int] = iter(range(1, 10_000))
        method = getattr(Batch, name)

        def raises(self: Batch, *arguments: object) -> object:
            if next(calls) == when:
                raise error
            return method(self, *arguments)

        monkeypatch.setattr(Batch, name, raises)

    return arrange


@pytest.mark.parametrize(("name", "when"), [("store", 1), ("step", 5), ("join", 1), ("attention", 1)])
def test_out_of_memory_means_fewer_rows_and_the_same_text(
    model: Model, alone: list[ChunkResult], short: Callable[[str, int, BaseException], None], name: str, when: int
) -> None:
    engine = engine_of(model)
    short(name, when, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    assert texts(engine.transcribe([Chunk(None, audio, ENGLISH) for audio in clips()[:2]])) == texts(alone[:2])
    assert (engine.rows, engine.windows, engine.steps["out_of_memory"]) == (ROWS // 2, WINDOWS // 2, 1)
    assert engine.steps["plain"] == 0


def test_what_is_no_want_of_memory_and_a_single_row_end_the_step(
    model: Model, short: Callable[[str, int, BaseException], None]
) -> None:
    short("step", 1, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="assert triggered"):
        engine_of(model).transcribe([Chunk(None, clips()[0], ENGLISH)])
    short("step", 1, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        engine_of(model, rows=1).transcribe([Chunk(None, clips()[0], ENGLISH)])


def test_a_batch_that_does_not_fit_is_made_smaller(
    model: Model, short: Callable[[str, int, BaseException], None]
) -> None:
    short("__init__", 1, RuntimeError("CUDA error: out of memory"))
    assert engine_of(model).rows == ROWS // 2


@torch.inference_mode()
def test_rows_are_those_that_memory_and_speed_allow(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    took = {8: 1.0, 16: 1.1, 32: 1.5, 64: 2.9}
    monkeypatch.setattr(rows, "_step", lambda _model, count, _capture: took[count])
    monkeypatch.setattr(rows, "_encode", lambda _model, windows: 20.0 * windows)
    a_row = rows.bytes_a_row(model)
    plenty = rows.measure(model, None, 10_000 * a_row)
    assert (plenty["rows"], plenty["windows"]) == (32, 4)  # 64 in 2.9 ms are no better than 32 in 1.5
    assert rows.measure(model, None, round(17.5 * a_row / rows.SHARE))["rows"] == 16
    assert rows.measure(model, None, round(3.5 * a_row / rows.SHARE))["rows"] == 3
    chosen = {"batch": {**plenty, "card": "T4"}}
    for free, expected in ((10_000 * a_row, 32), (round(9.5 * a_row / rows.SHARE), 9)):
        found = rows.verdict(model, chosen, tmp_path, recorder=None, card="T4", free=free)
        assert found["rows"] == expected  # as measured, or what there is memory for now


@torch.inference_mode()
def test_rows_are_measured_by_real_steps_and_an_encoder(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CANDIDATES", (2,))
    monkeypatch.setattr(rows, "WINDOWS", (1,))
    monkeypatch.setattr(rows, "STEPS", 2)
    for recorder in (None, graphs.recorder()):
        found = rows.measure(model, recorder, 1 << 40)
        assert found["rows"] == 2
        assert found["step_ms"]["2"] > 0
        assert found["encode_ms"]["1"] > 0


@torch.inference_mode()
def test_the_text_is_the_same_when_the_audio_is_kept_in_bytes(
    model: Model, alone: list[ChunkResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = TorchKernels()
    make = functools.partial(ByteCache, model.dims, cross=model.decoder.cross_kv, like=model.decoder.positions)
    in_bytes = replace(model, audio_cache=lambda rows: make(rows, kernels=kernels))
    for recorder in (graphs.recorder(kernels), graphs.recorder()):
        engine = engine_of(in_bytes, recorder=recorder)
        encoding.record(in_bytes, engine._scheduler.batch, WINDOWS, graphs.CudaGraphs())
        monkeypatch.setattr(engine._scheduler, "_encoded", None)  # all is recorded
        assert texts(engine.transcribe([Chunk(None, audio, ENGLISH) for audio in clips()])) == texts(alone)
        assert engine.steps["plain"] == 0
    assert rows.bytes_a_row(in_bytes) < rows.bytes_a_row(model)


def test_the_text_is_the_same_when_only_some_want_words(model: Model, alone: list[ChunkResult]) -> None:
    plain = replace(ENGLISH, words=False)
    mixed = [Chunk(None, audio, (ENGLISH, plain)[number % 2]) for number, audio in enumerate(clips())]
    results = engine_of(model).transcribe(mixed)
    assert texts(results) == texts(alone)
    assert [bool(result.segments[0].words) for result in results] == [number % 2 == 0 for number in range(len(results))]
