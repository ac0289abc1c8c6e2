"""Chooses device and precision, and loads the model in them."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from transcribe import gpu, logs, memory
from transcribe.engine.chunks import EngineError
from transcribe.engine.cuda import compile_cache, encoding, graphs, rows, trial
from transcribe.engine.cuda.audio_cache import ByteCache
from transcribe.engine.cuda.compiler import CompilerError
from transcribe.engine.cuda.kernels import GpuKernels
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.scheduler import Scheduler
from transcribe.engine.model import whisper
from transcribe.engine.model.whisper import Model

PROCESSOR_ROWS = 16  # more are no faster there
BYTES, KERNELS, TORCH = "kernels, audio in bytes", "kernels", "torch"  # what a recorded step may be made of


@dataclass(frozen=True)
class EngineOptions:
    """What the configuration asks for; `max_chunks` None is for what suits the device."""

    device: str
    dtype: str
    max_chunks: int | None
    cache_dir: Path | None
    store: bool


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in {"cpu", "cuda"}:
        raise EngineError(f"unknown device {wanted!r}: set device to auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError("there is no usable GPU: set device to auto or cpu, or check the driver with nvidia-smi")
    return wanted


def load_scheduler(model_dir: Path, options: EngineOptions) -> tuple[Scheduler, str, dict[str, Any]]:
    """The scheduler, its precision in torch's spelling, and what was chosen."""
    begin = time.monotonic()
    if options.cache_dir is not None and options.device != "cpu":
        compile_cache.keep(options.cache_dir, store=options.store)
    device = _device(options.device)
    if device == "cpu":
        memory.keep_large_blocks()
    folder = options.cache_dir / "prepared" if options.cache_dir is not None else None
    with torch.inference_mode():
        loaded, chosen = whisper.load(model_dir, device=device, dtype=options.dtype, folder=folder, store=options.store)
        if device == "cuda":
            scheduler, found = _for_gpu(loaded, chosen, (folder, options.store), options.max_chunks)
        else:
            scheduler = Scheduler(loaded, options.max_chunks or PROCESSOR_ROWS)
            found = {"steps": {"recorded": False}}
    facts = {
        "device": device,
        "precision": chosen["precision"],
        "measured_ms": chosen["measured_ms"],
        "prepared": chosen["prepared"],
        **found,
        "kernels_compiled": compile_cache.stored(options.cache_dir),
        "word_times": loaded.special.word_times(loaded.dims),
        "load_seconds": round(time.monotonic() - begin, 3),
    }
    return scheduler, f"torch.{loaded.precision.decoder}", facts


def _for_gpu(
    model: Model, chosen: Mapping[str, Any], kept: tuple[Path | None, bool], wanted: int | None
) -> tuple[Scheduler, dict[str, Any]]:
    """The scheduler with the decoder's steps recorded, where that is good, and what was found: "steps" and "batch".
    `kept` is where results are kept, and whether they may be written there."""
    card, (folder, store) = _gpu_name(), kept
    kernels = _kernels(model, folder, store=store)
    ways = _ways(model, kernels)
    steps = trial.verdict(chosen, folder if store else None, ways, card)
    model, made = ways.get(steps.get("way", TORCH), ways[TORCH])
    recorder = made if steps["recorded"] else None
    free, _ = torch.cuda.mem_get_info()
    batch = rows.verdict(model, chosen, folder if store else None, recorder=recorder, card=card, free=free)

    def prepare(made_batch: Batch) -> None:
        graphs.record(made_batch, made(made_batch))
        encoding.record(model, made_batch, batch["windows"], graphs.CudaGraphs())

    costs = kernels.alignment_cost if kernels else None
    scheduler = Scheduler(
        model, wanted or batch["rows"], windows=batch["windows"], prepare=prepare if recorder else None, costs=costs
    )
    return scheduler, {"steps": steps, "batch": batch}


def _ways(model: Model, kernels: GpuKernels | None) -> dict[str, trial.Way]:
    """How a step can be recorded here, the fastest first."""
    plain = {TORCH: (model, graphs.recorder())}
    if kernels is None:
        return plain
    make = functools.partial(ByteCache, model.dims, cross=model.decoder.cross_kv, like=model.decoder.positions)
    in_bytes = replace(model, audio_cache=lambda rows: make(rows, kernels=kernels))
    recorder = graphs.recorder(kernels)
    return {BYTES: (in_bytes, recorder), KERNELS: (model, recorder), **plain}


def _kernels(model: Model, folder: Path | None, *, store: bool) -> GpuKernels | None:
    """Those for this GPU, kept in `folder`; None where they do not suit the model or cannot be had."""
    if not GpuKernels.fit(model.dims, model.compute_dtype):
        return None
    try:
        return GpuKernels(folder, store=store)
    except (CompilerError, OSError, AttributeError) as error:  # no compiler, or not the driver's functions
        logs.warning("kernels_not_loaded", reason=" ".join(f"{type(error).__name__}: {error}".split())[:300])
        return None


def _gpu_name() -> str:
    """Card and versions that a measurement holds for."""
    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{card.name}, driver {gpu.driver_version()}, torch {torch.__version__}"
