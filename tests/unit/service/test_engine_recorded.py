"""Recorded steps stay in use: after the trial, in every batch and size, and after a recording that failed.

The captures are emulated on the processor, with the rules of torch's memory for CUDA graphs.
"""

from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from support import graph_memory
from support.graph_memory import DEAD, REFUSED, GraphMemory
from support.tiny_whisper import FRAMES, Tiny, make
from support.torch_kernels import TorchKernels
from torch import Tensor
from transcribe import gpu
from transcribe.engine import Engine
from transcribe.engine.chunks import Chunk
from transcribe.engine.cuda import graphs
from transcribe.engine.cuda.graphs import CAPTURES, CudaGraphs, Replay
from transcribe.engine.cuda.kernels import StepKernels
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.scheduler import Scheduler
from transcribe.engine.decode.state import DecodeRequest, DecodeSequence
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions
from transcribe.worker.main import LoadedModel, facts
from transcribe.worker.status import StatusReporter

ROWS = 10  # so that there are two numbers of rows that steps are recorded for
SIZES = 2


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> GraphMemory:
    return graph_memory.emulate(monkeypatch)


def rows_of(tiny: Tiny, count: int = 14, temperature: float = 0.0) -> list[tuple[Tensor, DecodeSequence]]:
    """Audio and a row for each; the more rows there are, the longer their prompts."""
    found = []
    for seed in range(count):
        mel = torch.randn(8, FRAMES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        chunk = Chunk(None, torch.zeros(0).numpy(), DecodeOptions(language="en"))
        prefix = tiny.prefix("en", "transcribe", list(range(seed)))
        found.append((mel, DecodeSequence(DecodeRequest(chunk), prefix, temperature)))
    return found


@torch.inference_mode()
def decoded(tiny: Tiny, batch: Batch, **options: Any) -> list[list[int]]:
    """What a batch makes of these rows."""
    rows = rows_of(tiny, **options)
    tiny.decode(batch, rows)
    return [row.tokens for _, row in rows]


@torch.inference_mode()
def recorded(tiny: Tiny, kernels: StepKernels | None = None) -> tuple[Batch, Replay]:
    batch = Batch(tiny.decoder, tiny.special, ROWS)
    return batch, graphs.record(batch, Replay(batch, CudaGraphs(), kernels))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [None, TorchKernels()])
def test_every_batch_and_size_is_recorded_also_after_the_graphs_of_another_are_gone(
    memory: GraphMemory, kernels: StepKernels | None
) -> None:
    tiny = make(21)
    expected = decoded(tiny, Batch(tiny.decoder, tiny.special, ROWS))
    for number in range(1, 4):
        batch, replay = recorded(tiny, kernels)
        assert memory.captures == number * SIZES  # all of them before the first row comes, and none later
        assert decoded(tiny, batch) == expected
        assert memory.captures == number * SIZES
        assert (replay.failed_captures, replay.failure, batch.steps["plain"]) == (0, "", 0)
        assert batch.steps["recorded"] > 10
        batch.greedy_step = None  # a batch and its steps hold one another
        del batch, replay
    assert memory.captures > memory.pools == 3  # the graphs of a batch share their memory


def test_the_memory_of_a_batch_that_is_gone_is_dead(memory: GraphMemory) -> None:
    """What the emulation must do for these tests to mean anything."""
    pool = memory.handle()
    kept = [memory.capture(lambda: None, pool)]
    memory.capture(lambda: None, pool)
    kept.clear()
    with pytest.raises(RuntimeError, match="INTERNAL ASSERT"):
        memory.capture(lambda: None, pool)


@pytest.mark.parametrize("fails", [[True], [False, True], [True, True, False, True]])
def test_a_recording_that_failed_is_tried_again_with_fresh_memory(
    monkeypatch: pytest.MonkeyPatch, fails: list[bool]
) -> None:
    graph_memory.emulate(monkeypatch, fails)
    tiny = make(21)
    expected = decoded(tiny, Batch(tiny.decoder, tiny.special, ROWS))
    batch, replay = recorded(tiny)
    assert decoded(tiny, batch) == expected
    assert (replay.failed_captures, replay.failure) == (sum(fails), f"RuntimeError: {REFUSED}")
    assert batch.steps["plain"] == 0
    assert batch.steps["recorded"] > 10
    assert DEAD not in replay.failure


def test_what_never_can_be_recorded_is_not_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = graph_memory.emulate(monkeypatch, repeat(True))
    tiny = make(21)
    batch, replay = recorded(tiny)
    decoded(tiny, batch)
    assert memory.captures == replay.failed_captures == CAPTURES * SIZES
    assert batch.steps["recorded"] == 0
    assert batch.steps["plain"] > 10
    assert caplog.messages.count("step_not_recorded") == replay.failed_captures


def engine_of(batch: Batch, *, wanted: bool) -> Engine:
    """An engine whose decoder this is; nothing else of it is used."""
    scheduler = cast(Scheduler, SimpleNamespace(batch=batch, out_of_memory=0))
    found: dict[str, Any] = {"word_times": False, "steps": {"recorded": wanted}, "precision": {}}
    counts = SimpleNamespace(steps=Scheduler.steps.__get__(scheduler), batch=batch)
    return Engine(cast(Scheduler, counts), device="cpu", torch_dtype="torch.float64", facts=found)


def test_the_engine_says_how_its_steps_were_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph_memory.emulate(monkeypatch, [True])
    tiny = make(21)
    batch, _ = recorded(tiny)
    decoded(tiny, batch)
    decoded(tiny, batch, count=2, temperature=0.4)
    said = engine_of(batch, wanted=True).steps
    assert (said["wanted"], said["plain"], said["failed_captures"]) == (True, 0, 1)
    assert said["recorded"] > 10
    assert said["sampled"] > 1
    assert said["failure"].endswith(REFUSED)
    store = Store(tmp_path / "jobs.db")
    reporter = StatusReporter(store)
    reporter.meter.steps = lambda: said
    reporter.set_state("ready")
    told = store.worker() or {}
    store.close()
    assert told["steps"] == said
    names = {"recorded_steps_total", "plain_steps_total", "sampled_steps_total", "failed_captures_total"}
    assert names <= set(told["metrics"])
    assert told["metrics"]["recorded_steps_total"] == said["recorded"]


def test_the_worker_says_which_gpus_it_has_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address, vendor, kind in (("0000:00:1e.0", "0x10de", "0x030200"), ("0000:00:1f.1", "0x10de", "0x040300")):
        (tmp_path / address).mkdir()
        (tmp_path / address / "vendor").write_text(f"{vendor}\n")
        (tmp_path / address / "class").write_text(f"{kind}\n")
    (tmp_path / "0000:00:05.0").mkdir()  # what has gone while it was read
    monkeypatch.setattr(gpu, "PCI", tmp_path)
    engine = engine_of(Batch(make(1).decoder, make(1).special, 1), wanted=False)
    info = SimpleNamespace(model_id="a/b", model_revision="c" * 40, speakers=None)
    said = facts(LoadedModel(engine, cast(Any, None), cast(Any, info)))
    assert said["nvidia_devices"] == ["0000:00:1e.0"]
    assert (said["device"], said["gpu"], said["rows"]) == ("cpu", None, 1)
