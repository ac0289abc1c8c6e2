"""Whether steps should be recorded on this device: both ways are tried on rows of noise."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transcribe.engine.chunks import Chunk
from transcribe.engine.cuda.graphs import CAPTURES, Capture, Replay
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.state import DecodeRequest, DecodeSequence
from transcribe.engine.model import weight_cache
from transcribe.engine.model.whisper import Model
from transcribe.types import DecodeOptions

ROWS = 8
STEPS = 24
AGREEMENT = 0.98  # share of the tokens that must be the same: rounding may decide between two that are equally likely
UNFINISHED = {"recorded": False, "error": "the trial was not finished"}  # while it runs, for good if it crashes


def verdict(model: Model, chosen: Mapping[str, Any], folder: Path | None, capture: Capture) -> dict[str, Any]:
    """The result of `run`, kept beside the weights in `folder`, whose facts are `chosen`: tried once for a machine.

    Until the trial is over the stored verdict is no: if it crashes the process, the next start does not try again.
    """
    if "steps" in chosen:
        return dict(chosen["steps"])
    if folder is None or not weight_cache.amend(folder, {"steps": UNFINISHED}):
        return {"recorded": False, "error": "the outcome of a trial could not be kept"}
    try:
        outcome = run(model, capture)
    except Exception as error:  # out of memory, most likely: the plain step needs less
        outcome = {"recorded": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    weight_cache.amend(folder, {"steps": outcome})
    return outcome


def run(model: Model, capture: Capture) -> dict[str, Any]:
    """The verdict "recorded", with "measured_ms" of a step of both ways, "agreement" of their tokens, and "error".

    Every step is made twice from the same state.
    """
    batch = _batch(model)
    count, length = len(batch.rows), batch.rows[0].length
    replay, cursor = Replay(batch, capture), batch.cursor  # not `record`: the graphs go when this returns, in no cycle
    times: dict[str, list[float]] = {"plain": [], "recorded": []}
    same = 0
    for step in range(STEPS):
        before = [tensor.clone() for tensor in cursor.tensors]
        expected = _timed(batch, lambda: batch.plain_step(count, length + step), times["plain"])  # noqa: B023
        for tensor, value in zip(cursor.tensors, before, strict=True):
            tensor.copy_(value)
        found = _timed(batch, lambda: _replayed(replay, count, length + step), times["recorded"])  # noqa: B023
        if replay.failed_captures >= CAPTURES:
            return {"recorded": False, "error": replay.failure}
        same += sum(one == other for one, other in zip(expected, found, strict=True))
    milliseconds = {way: round(statistics.median(seconds) * 1000, 3) for way, seconds in times.items()}
    agreement = round(same / (STEPS * count), 4)
    good = agreement >= AGREEMENT and milliseconds["recorded"] < milliseconds["plain"]
    return {"recorded": good, "measured_ms": milliseconds, "agreement": agreement, "error": ""}


def _batch(model: Model) -> Batch:
    """Rows that have just joined, each with noise for its audio."""
    batch = Batch(model.decoder, model.special, ROWS, model.cross_attention_cache(ROWS))
    language = next(iter(model.special.languages), "en")
    noise = torch.Generator(model.device).manual_seed(0)
    for _ in range(ROWS):
        encoded = torch.randn(model.dims.positions, model.dims.width, generator=noise, device=model.device)
        batch.store(encoded.to(model.compute_dtype))
        request = DecodeRequest(
            Chunk(None, np.zeros(0, np.float32), DecodeOptions(language=language)), language=language
        )
        batch.join(DecodeSequence(request, model.special.opening(language, "transcribe"), 0.0))
    return batch


def _replayed(replay: Replay, rows: int, text: int) -> bool:
    """Tries to record the step as often as the service would."""
    return any(replay(rows, text) for _ in range(CAPTURES))


def _timed(batch: Batch, step: Callable[[], object], times: list[float]) -> list[int]:
    """The tokens that a step chose; notes how long it took until they were here."""
    begin = time.perf_counter()
    step()
    tokens: list[int] = batch.cursor.tokens.tolist()
    times.append(time.perf_counter() - begin)
    return tokens
