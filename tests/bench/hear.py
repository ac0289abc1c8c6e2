"""One engine, one process: `python hear.py ENGINE MODEL LANGUAGE AT_ONCE WARM_FILE FILE…` prints a line of JSON.

So many files are heard AT_ONCE. Loading, and a first run over WARM_FILE, are not timed. Started by compare.py, each
engine in its own environment.
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


def read(file: Path) -> tuple[Any, int]:
    """Samples and rate of a recording, which is 16 kHz and mono here."""
    import soundfile

    samples, rate = soundfile.read(file, dtype="float32")
    return samples, int(rate)


def ours(setting: Setting, variant: str) -> Hear:
    """The service's own way: decode, find speech, cut, batch. Several files share the batch, as its requests do."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))
    from transcribe.audio.chunking import AudioChunk
    from transcribe.audio.recording import Recording
    from transcribe.audio.vad import Vad
    from transcribe.cli import transcribe
    from transcribe.engine import Chunk, Engine
    from transcribe.types import DecodeOptions
    from transcribe.worker.assembly import Assembly

    cache = Path(__file__).resolve().parents[2] / ".cache" / "bench" / f"engine-{variant}"
    engine = Engine.load(setting.model, device="cpu", dtype=variant, max_chunks=16, cache_dir=cache)
    vad = Vad.load()
    options = DecodeOptions(language=setting.language)

    def pieces(file: Path) -> list[AudioChunk]:
        with Recording(file, Limits(), vad) as recording:
            return [piece for step in recording for piece in step]

    def together(files: Sequence[Path]) -> list[str]:
        cut = [(number, place, piece) for number, file in enumerate(files) for place, piece in enumerate(pieces(file))]
        cut.sort(key=lambda one: one[1])  # the files take turns
        results = engine.transcribe(Chunk(None, piece.audio, options) for _, _, piece in cut)
        assemblies, texts = [Assembly() for _ in files], [""] * len(files)
        for (number, place, piece), result in zip(cut, results, strict=True):
            segments = assemblies[number].add(place, piece, result)
            texts[number] += "".join(segment.text for segment in segments)
        return texts

    def hear(files: Sequence[Path]) -> list[str]:
        if len(files) > 1:
            return together(files)
        with Recording(files[0], Limits(), vad) as recording:
            return [transcribe(engine, recording, options).transcript.text]

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
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    recognise = transformers.pipeline(
        "automatic-speech-recognition", model=str(setting.model), dtype=torch.float32, chunk_length_s=30
    )
    options = {"language": setting.language, "task": "transcribe", "num_beams": 1}

    def hear(files: Sequence[Path]) -> list[str]:
        inputs = [{"raw": samples, "sampling_rate": rate} for samples, rate in map(read, files)]
        return [told["text"] for told in recognise(inputs, batch_size=int(variant), generate_kwargs=options)]

    return hear


def whisper_cpp(setting: Setting, variant: str) -> Hear:
    """whisper.cpp as its Python binding's wheel was built, greedy: VARIANT is only the file's."""
    peer = importlib.import_module("pywhispercpp.model")

    options: dict[str, Any] = {"print_progress": False, "print_realtime": False, "language": setting.language}
    model = peer.Model(str(setting.model), n_threads=setting.threads, redirect_whispercpp_logs_to=None, **options)

    def hear(files: Sequence[Path]) -> list[str]:
        heard = [model.transcribe(read(file)[0]) for file in files]
        return [" ".join(segment.text for segment in segments) for segments in heard]

    return hear


def openai_whisper(setting: Setting, _: str) -> Hear:
    """OpenAI's own code in float32, greedy, which is its default."""
    import torch

    peer = importlib.import_module("whisper")

    torch.set_num_threads(setting.threads)
    model = peer.load_model(str(setting.model), device="cpu")

    def hear(files: Sequence[Path]) -> list[str]:
        options: dict[str, Any] = {"language": setting.language, "fp16": False}
        return [model.transcribe(read(file)[0], **options)["text"] for file in files]

    return hear


ENGINES: dict[str, Callable[[Setting, str], Hear]] = {
    "ours": ours,
    "faster-whisper": faster_whisper,
    "pipeline": pipeline,
    "whisper.cpp": whisper_cpp,
    "openai-whisper": openai_whisper,
}


def peak_mb() -> float:
    """Of this program alone; what rusage tells includes the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(engine: str, setting: Setting, warm: Path, groups: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """Seconds, processor seconds and peak memory (MB) of one run over `groups` of files, and the texts."""
    name, _, variant = engine.partition(":")
    begin = time.perf_counter()
    hear = ENGINES[name](setting, variant)
    hear([warm])
    loaded = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    texts = [text for files in groups for text in hear(files)]
    seconds = time.perf_counter() - loaded
    after = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    return {
        "engine": engine,
        "seconds": seconds,
        "cpu_seconds": spent,
        "load_seconds": loaded - begin,
        "peak_mb": peak_mb(),
        "texts": texts,
    }


def main() -> None:
    engine, model, language, at_once, warm, *names = sys.argv[1:]
    threads = len(os.sched_getaffinity(0))
    setting = Setting(Path(model), language, threads)
    files, size = [Path(name) for name in names], int(at_once)
    groups = [files[start : start + size] for start in range(0, len(files), size)]
    print(json.dumps(measure(engine, setting, Path(warm), groups)))


if __name__ == "__main__":
    main()
