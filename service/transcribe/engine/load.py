"""Chooses device and precision, and loads the model in them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transcribe import memory
from transcribe.engine.chunks import EngineError
from transcribe.engine.cuda import compile_cache, graphs, trial
from transcribe.engine.decode.scheduler import Scheduler
from transcribe.engine.model import whisper


@dataclass(frozen=True)
class EngineOptions:
    """What the configuration asks for."""

    device: str
    dtype: str
    max_chunks: int
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
        scheduler = Scheduler(loaded, options.max_chunks)
        kept = folder if options.store else None
        steps = trial.verdict(loaded, chosen, kept, graphs.CudaGraphs()) if device == "cuda" else {"recorded": False}
        if steps["recorded"]:
            graphs.record(scheduler.batch, graphs.CudaGraphs())
    facts = {
        "device": device,
        "precision": chosen["precision"],
        "measured_ms": chosen["measured_ms"],
        "prepared": chosen["prepared"],
        "steps": steps,
        "rows": options.max_chunks,
        "kernels_compiled": compile_cache.stored(options.cache_dir),
        "word_times": loaded.special.word_times(loaded.dims),
        "load_seconds": round(time.monotonic() - begin, 3),
    }
    return scheduler, f"torch.{loaded.precision.decoder}", facts
