"""Whether steps should be recorded on this device, and of what: the ways are tried on rows of noise."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transcribe import logs
from transcribe.engine.chunks import Chunk
from transcribe.engine.cuda.graphs import Recorder
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.state import DecodeRequest, DecodeSequence
from transcribe.engine.model import weight_cache
from transcribe.engine.model.whisper import Model
from transcribe.types import DecodeOptions

ROWS = 8
STEPS = 24
AGREEMENT = 0.9  # share of the tokens that must be the same: of noise, many are nearly as likely as others
LIKENESS, NEAR = 0.98, 0.1  # share of the natural logarithms of their probabilities that must be so near
Way = tuple[Model, Recorder]  # a model, by how it keeps what it reads, and what records its steps
UNFINISHED = "the trial was not finished"  # while it runs, and after it crashed
TRIES = 3  # of a trial that fails or crashes, after each boot of the machine
BOOT = Path("/proc/sys/kernel/random/boot_id")


def verdict(chosen: Mapping[str, Any], folder: Path | None, ways: Mapping[str, Way], card: str = "") -> dict[str, Any]:
    """The result of `run` for the first of the `ways` to record steps that is good, or else for the last: kept beside
    the weights in `folder`, whose facts are `chosen`, and tried once for a `card`.

    One that failed is no verdict: the next starts try again, TRIES times after each boot. The number is stored before
    the trial, so that one that crashes the process does not do so for ever. Without a folder (the service does not
    write it) a verdict of another card holds, and one that failed without a crash is tried again at every start.
    """
    kept = chosen.get("steps", {})
    known = kept.get("card") == card
    if kept and not kept["error"] and (known or folder is None):
        return dict(kept)
    boot = _boot()
    tries = kept["tries"] + 1 if folder is not None and known and kept.get("boot") == boot else 1
    if tries > TRIES:
        return dict(kept)
    mark = {"recorded": False, "error": UNFINISHED, "tries": tries, "boot": boot, "card": card}
    stored = folder is not None and weight_cache.amend(folder, {"steps": mark})
    if not stored and (not kept or kept["error"] == UNFINISHED):
        return {"recorded": False, "error": kept.get("error", "the outcome of a trial could not be kept")}
    outcome = _first_good(ways)
    if folder is not None:
        weight_cache.amend(folder, {"steps": mark | outcome})
    return mark | outcome


def _first_good(ways: Mapping[str, Way]) -> dict[str, Any]:
    """The outcome of the first way that is good, or of the last; "way" is its name, "rejected" why others were not."""
    rejected: dict[str, str] = {}
    outcome: dict[str, Any] = {}
    for name, way in ways.items():
        try:
            outcome = run(*way)
        except Exception as error:  # out of memory, most likely: the plain step needs less
            outcome = {"recorded": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        outcome |= {"way": name, "rejected": dict(rejected)}
        if outcome["recorded"]:
            break
        rejected[name] = outcome["error"] or f"agreement {outcome['agreement']}, {outcome['measured_ms']} ms"
        logs.warning("steps_rejected", made_of=name, reason=rejected[name])
    return outcome


def _boot() -> str:
    """Names the time since the machine was started; empty where the kernel does not tell."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def run(model: Model, recorder: Recorder) -> dict[str, Any]:
    """The verdict "recorded", with "measured_ms" of a step of both ways, "agreement" of their tokens, "likeness" of
    their probabilities, and "error".

    Every step is made twice from the same state.
    """
    batch = batch_of_noise(model, ROWS)
    count, length = len(batch.rows), batch.rows[0].length
    replay, cursor = recorder(batch), batch.cursor  # not `record`: the graphs go when this returns, in no cycle
    if not replay.record([replay.sizes(count, length), replay.sizes(count, length + STEPS)]):
        return {"recorded": False, "error": replay.failure}
    times: dict[str, list[float]] = {"plain": [], "recorded": []}
    same = near = 0
    for step in range(STEPS):
        before = [tensor.clone() for tensor in cursor.tensors]
        _timed(batch, lambda: batch.plain_step(count, length + step), times["plain"])  # noqa: B023
        expected = cursor.tokens.clone(), cursor.logprobs.clone()
        for tensor, value in zip(cursor.tensors, before, strict=True):
            tensor.copy_(value)
        _timed(batch, lambda: replay(count, length + step), times["recorded"])  # noqa: B023
        same += int((cursor.tokens == expected[0]).sum())
        near += int(((cursor.logprobs - expected[1]).abs() <= NEAR).sum())
    milliseconds = {way: round(statistics.median(seconds) * 1000, 3) for way, seconds in times.items()}
    agreement, likeness = round(same / (STEPS * count), 4), round(near / (STEPS * count), 4)
    good = agreement >= AGREEMENT and likeness >= LIKENESS and milliseconds["recorded"] < milliseconds["plain"]
    return {
        "recorded": good,
        "measured_ms": milliseconds,
        "agreement": agreement,
        "likeness": likeness,
        "error": "",
    }


def batch_of_noise(model: Model, rows: int) -> Batch:
    """So many rows that have just joined, each with noise for its audio."""
    batch = Batch(model.decoder, model.special, rows, model.cross_attention_cache(rows))
    language = next(iter(model.special.languages), "en")
    noise = torch.Generator(model.device).manual_seed(0)
    for _ in range(rows):
        encoded = torch.randn(1, model.dims.positions, model.dims.width, generator=noise, device=model.device)
        batch.store(encoded.to(model.compute_dtype))
        chunk = Chunk(None, np.zeros(0, np.float32), DecodeOptions(language=language))
        opening = model.special.opening(language, "transcribe")
        batch.join([DecodeSequence(DecodeRequest(chunk, language=language), opening, 0.0)])
    return batch


def _timed(batch: Batch, step: Callable[[], object], times: list[float]) -> None:
    """Notes how long it takes until the tokens that a step chooses are here."""
    begin = time.perf_counter()
    step()
    batch.cursor.tokens.tolist()
    times.append(time.perf_counter() - begin)
