"""How many chunks this GPU decodes together, and how many windows it encodes: by its memory, and by its time for each.

More rows are worth their memory as long as a step of twice as many takes much less than twice as long.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from transcribe.engine.cuda.graphs import Recorder
from transcribe.engine.cuda.trial import batch_of_noise
from transcribe.engine.model import weight_cache
from transcribe.engine.model.features import WINDOW_FRAMES
from transcribe.engine.model.whisper import Model

CANDIDATES = (8, 16, 32, 64, 128)
GAIN = 1.15  # in tokens a second, by which twice as many rows must be better
SHARE = 0.7  # of the free memory that rows may take; the rest is for encoding, and for what else runs on the GPU
STEPS = 8
WINDOWS = (16, 8, 4, 2, 1)
LONGEST_MS = 100.0  # that rows which are being decoded may wait for windows that are encoded
LOGITS = 4  # float32 copies of a row's logits that are in use at the same time


def bytes_a_row(model: Model) -> int:
    """The GPU memory of a row: keys and values of its audio and its text, the alignment heads' weights, its logits."""
    dims, size = model.dims, model.compute_dtype.itemsize
    heads = len(model.special.alignment_heads) if model.special.word_times(dims) else 0
    audio = 1 if model.audio_cache else size
    kept = 2 * dims.decoder_layers * (dims.positions * audio + dims.context * size) * dims.width
    return kept + heads * dims.context * dims.positions * 2 + LOGITS * 4 * dims.vocabulary


def fitting(model: Model, free: int) -> int:
    """How many rows `free` bytes have room for, at least one."""
    return max(1, int(free * SHARE) // bytes_a_row(model))


def verdict(
    model: Model,
    chosen: Mapping[str, Any],
    folder: Path | None,
    *,
    recorder: Recorder | None,
    card: str,
    free: int,
) -> dict[str, Any]:
    """What `measure` finds, kept beside the weights in `folder`, whose facts are `chosen`, for a `card`.

    `free` are the bytes of its memory now: "rows" are never more than they have room for.
    """
    kept = chosen.get("batch", {})
    if kept.get("card") != card:
        kept = {"card": card, **measure(model, recorder, free)}
        if folder is not None:
            weight_cache.amend(folder, {"batch": kept})
    return {**kept, "rows": min(kept["rows"], fitting(model, free))}


def measure(model: Model, recorder: Recorder | None, free: int) -> dict[str, Any]:
    """ "rows" and "windows" to work on together, "step_ms" and "encode_ms" by their numbers, and "row_bytes".

    `recorder` makes what records steps, where the trial chose that.
    """
    most = fitting(model, free)
    steps: dict[int, float] = {}
    best = min(most, CANDIDATES[0])
    for rows in CANDIDATES:
        if rows > most or (milliseconds := _unless_short(lambda: _step(model, rows, recorder))) is None:  # noqa: B023
            break
        steps[rows] = milliseconds
        if rows > best and rows / milliseconds < GAIN * best / steps[best]:
            break
        best = rows
    windows, encoded = 1, dict[int, float]()
    for windows in WINDOWS:
        milliseconds = _unless_short(lambda: _encode(model, windows))  # noqa: B023
        encoded |= {windows: milliseconds} if milliseconds is not None else {}
        if milliseconds is not None and milliseconds <= LONGEST_MS:
            break
    return {
        "rows": best,
        "windows": windows,
        "step_ms": {str(count): value for count, value in steps.items()},
        "encode_ms": {str(count): value for count, value in encoded.items()},
        "row_bytes": bytes_a_row(model),
    }


def _unless_short(work: Callable[[], float]) -> float | None:
    """What `work` returns, None if the memory is too short for it."""
    try:
        return work()
    except torch.OutOfMemoryError:
        pass
    torch.cuda.empty_cache()
    return None


def _step(model: Model, rows: int, recorder: Recorder | None) -> float:
    """Milliseconds of a greedy step."""
    batch = batch_of_noise(model, rows)
    length = batch.rows[0].length
    if recorder is None:
        return _median(lambda: batch.plain_step(rows, length + STEPS), batch.cursor.tokens)
    replay = recorder(batch)
    replay.record([replay.sizes(rows, length + STEPS)])
    return _median(lambda: replay(rows, length + STEPS), batch.cursor.tokens)


def _encode(model: Model, windows: int) -> float:
    """Milliseconds of encoding so many whole windows."""
    mel = torch.zeros(windows, model.dims.bands, WINDOW_FRAMES, dtype=model.compute_dtype, device=model.device)
    return _median(lambda: model.encoder(mel), mel)


def _median(work: Callable[[], object], waits: torch.Tensor) -> float:
    """Milliseconds that `work` takes on the device of `waits`, the first time left out."""
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        work()
        waits.view(-1)[:1].tolist()  # until the device has done it
        times.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(times[1:]), 3)
