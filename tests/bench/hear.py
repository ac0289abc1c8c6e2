"""One engine, one process: `python hear.py ENGINE MODEL_DIR LANGUAGE WARM_FILE FILE…` prints a line of JSON.

Loading, and a first run over WARM_FILE, are not timed. Started by compare.py, each engine in its own environment.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Hear = Callable[[Sequence[Path]], list[str]]


@dataclass(frozen=True)
class Setting:
    """What the engines have in common."""

    model: Path
    language: str
    threads: int


@dataclass(frozen=True)
class Limits:
    """Of the service's decoder; generous, as a benchmark's files are known."""

    audio_seconds: float = 14_400.0
    decode_seconds: float = 600.0
    decode_bytes: int = 512 * 1024 * 1024


def ours(setting: Setting, variant: str) -> Hear:
    """The service's own way: decode, find speech, cut, batch. Files are heard together."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))
    from transcribe.audio import Decoder
    from transcribe.chunking import Chunker
    from transcribe.engine import Engine
    from transcribe.onefile import transcribe
    from transcribe.types import DecodeOptions
    from transcribe.vad import Vad

    cache = Path(__file__).resolve().parents[2] / ".cache" / "bench" / f"engine-{variant}"
    engine = Engine.load(setting.model, device="cpu", dtype=variant, max_chunks=16, cache_dir=cache)
    vad = Vad.load()
    options = DecodeOptions(language=setting.language)

    def hear(files: Sequence[Path]) -> list[str]:
        texts = []
        for file in files:
            with Decoder(file, Limits()) as decoder:
                texts.append(transcribe(engine, Chunker(vad.stream()), decoder, options).transcript.text)
        return texts

    return hear


def faster_whisper(setting: Setting, variant: str) -> Hear:
    """Its batched pipeline, greedy: VARIANT is COMPUTE_TYPE-BATCH."""
    peer = importlib.import_module("faster_whisper")  # in the peers' environment only

    compute_type, batch = variant.rsplit("-", 1)
    model = peer.WhisperModel(str(setting.model), device="cpu", compute_type=compute_type, cpu_threads=setting.threads)
    pipeline = peer.BatchedInferencePipeline(model)

    def hear(files: Sequence[Path]) -> list[str]:
        options: dict[str, Any] = {"language": setting.language, "beam_size": 1, "batch_size": int(batch)}
        results = [pipeline.transcribe(str(file), **options)[0] for file in files]
        return ["".join(segment.text for segment in segments) for segments in results]

    return hear


def pipeline(setting: Setting, variant: str) -> Hear:
    """transformers' pipeline as its documentation shows it: 30 s chunks, VARIANT in a batch, float32, greedy."""
    import soundfile
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    recognise = transformers.pipeline(
        "automatic-speech-recognition", model=str(setting.model), dtype=torch.float32, chunk_length_s=30
    )
    options = {"language": setting.language, "task": "transcribe", "num_beams": 1}

    def hear(files: Sequence[Path]) -> list[str]:
        texts = []
        for file in files:
            samples, rate = soundfile.read(file, dtype="float32")
            heard = recognise({"raw": samples, "sampling_rate": rate}, batch_size=int(variant), generate_kwargs=options)
            texts.append(heard["text"])
        return texts

    return hear


ENGINES: dict[str, Callable[[Setting, str], Hear]] = {
    "ours": ours,
    "faster-whisper": faster_whisper,
    "pipeline": pipeline,
}


def measure(engine: str, setting: Setting, files: Sequence[Path], warm: Path) -> dict[str, Any]:
    """Seconds, processor seconds and peak memory (MB) of one run over `files`, and the texts."""
    name, _, variant = engine.partition(":")
    begin = time.perf_counter()
    hear = ENGINES[name](setting, variant)
    hear([warm])
    loaded = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    texts = hear(files)
    seconds = time.perf_counter() - loaded
    after = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    return {
        "engine": engine,
        "seconds": seconds,
        "cpu_seconds": spent,
        "load_seconds": loaded - begin,
        "peak_mb": after[0].ru_maxrss / 1024,
        "texts": texts,
    }


def main() -> None:
    engine, model, language, warm, *files = sys.argv[1:]
    threads = len(os.sched_getaffinity(0))
    setting = Setting(Path(model), language, threads)
    print(json.dumps(measure(engine, setting, [Path(file) for file in files], Path(warm))))


if __name__ == "__main__":
    main()
