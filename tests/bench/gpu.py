#!/usr/bin/env python3
"""Speed on a GPU: our engine by rows, its stages, peers where they are installed, other sizes with random weights, the
service over HTTP, and what a T4 should do by counted bytes and operations.

One command for a machine with a card; no network if --model and --audio (a folder of WAVs, 16 kHz mono) are given. With
`--device cpu --tiny` it tries itself where there is no card: those figures mean nothing.
"""

import argparse
import importlib.util
import itertools
import os
import shutil
import statistics
import sys
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"))]
sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "service")]

import numpy as np  # noqa: E402 - found by the lines above
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from transcribe.engine import Chunk, Engine  # noqa: E402
from transcribe.engine.cuda import graphs  # noqa: E402
from transcribe.engine.cuda.kernels import GpuKernels  # noqa: E402
from transcribe.engine.decode.batch import Batch  # noqa: E402
from transcribe.engine.decode.scheduler import Scheduler  # noqa: E402
from transcribe.engine.decode.segments import SegmentBuilder  # noqa: E402
from transcribe.engine.decode.state import DecodeRequest, DecodeSequence  # noqa: E402
from transcribe.engine.model import whisper  # noqa: E402
from transcribe.engine.model.features import LogMel  # noqa: E402
from transcribe.engine.model.network import Encoder  # noqa: E402
from transcribe.types import SAMPLE_RATE, DecodeOptions  # noqa: E402

from bench import common, gpushapes  # noqa: E402

WINDOW_SECONDS = 28
Sound = NDArray[np.float32]
STAGES: tuple[tuple[Any, str, str], ...] = (
    (LogMel, "together", "mel"),
    (LogMel, "__call__", "mel"),
    (Encoder, "__call__", "encoder"),
    (Batch, "store", "keys and values of the audio"),
    (Batch, "join", "join"),
    (Batch, "step", "step"),
    (SegmentBuilder, "segments", "segments and words"),
)


def windows(folder: Path | None, seconds: float) -> list[Sound]:
    """Recordings joined and cut to windows, again from the start until there are `seconds` of them."""
    if folder is None:
        from bench import corpus

        files = [corpus.prepare(None, None, 60.0).files[0]]
    else:
        files = sorted(folder.glob("*.wav"))
    whole = np.concatenate([_wav(path) for path in files])
    size = WINDOW_SECONDS * SAMPLE_RATE
    cut = [whole[start : start + size] for start in range(0, max(1, len(whole) - size // 2), size)]
    return list(itertools.islice(itertools.cycle(cut), max(1, round(seconds / WINDOW_SECONDS))))


def _wav(path: Path) -> Sound:
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
            sys.exit(f"{path} is not 16 kHz, mono and 16 bits: convert it")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (samples / 32768).astype(np.float32)


def _write(path: Path, sounds: Sequence[Sound]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        for sound in sounds:
            file.writeframes((sound * 32767).astype("<i2").tobytes())


def synchronized(device: str) -> float:
    """The time when the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def engine_figures(options: argparse.Namespace, sounds: Sequence[Sound], rows: int, *, words: bool) -> dict[str, Any]:
    """Our engine on windows that are cut already: medians of the repeats, warmed by one before."""
    own = Engine.load(
        options.model, device=options.device, dtype="auto", max_chunks=rows, cache_dir=options.cache / options.device
    )
    asked = DecodeOptions(language=options.language, words=words)
    took, text = [], ""
    for _ in range(options.repeats + 1):
        begin = synchronized(options.device)
        results = own.transcribe([Chunk(None, sound, asked) for sound in sounds])
        took.append(synchronized(options.device) - begin)
        text = "".join(segment.text for result in results for segment in result.segments)
    audio = sum(len(sound) for sound in sounds) / SAMPLE_RATE
    return {
        "rows": own.rows,
        "words": words,
        "times_realtime": round(audio / statistics.median(took[1:]), 1),
        "characters": len(text),
        "load_seconds": own.facts["load_seconds"],
        "steps": own.steps,
        "batch": own.facts.get("batch"),
        "stages_ms": stages(own, options.device, [Chunk(None, sound, asked) for sound in sounds]),
    }


def stages(engine: Engine, device: str, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """Calls and milliseconds of each, every stage waited for by itself: together they take longer than the engine."""
    counted: dict[str, list[float]] = {}
    kept = [(owner, name, owner.__dict__[name]) for owner, name, _ in STAGES]

    def timed(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            begin = synchronized(device)
            result = function(*arguments, **more)
            counted.setdefault(stage, []).append((synchronized(device) - begin) * 1000)
            return result

        return call

    for owner, name, stage in STAGES:
        setattr(owner, name, timed(owner.__dict__[name], stage))
    try:
        engine.transcribe(chunks)
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)
    return {stage: {"calls": len(each), "ms": round(sum(each), 2)} for stage, each in counted.items()}


def _recorder(batch: Batch) -> graphs.Replay:
    """What records its steps, as the service does it."""
    kernels = GpuKernels(None, store=False) if GpuKernels.fit(batch.decoder.dims, torch.float16) else None
    return graphs.recorder(kernels)(batch)


@torch.inference_mode()
def shape_figures(options: argparse.Namespace, shape: str, rows: int) -> dict[str, Any]:
    """A size with random weights: windows encoded and joined by `windows`, so many steps for all, and then the next."""
    like, _ = whisper.load(options.model, device=options.device, dtype="auto", folder=options.cache / options.device)
    made = gpushapes.model(like, shape)
    record = (lambda batch: graphs.record(batch, _recorder(batch))) if options.device == "cuda" else None
    scheduler = Scheduler(made, rows, windows=options.windows, prepare=record)
    noise = np.random.default_rng(0).normal(0.0, 0.1, 30 * SAMPLE_RATE).astype(np.float32)
    mel = LogMel(made.dims.bands, options.device)
    took = []
    for _ in range(options.repeats + 1):
        begin = synchronized(options.device)
        _window_round(scheduler.batch, made, lambda count: mel.together([noise] * count, 3000), options)
        took.append(synchronized(options.device) - begin)
    seconds = statistics.median(took[1:])
    predicted = gpushapes.cost(made.dims).seconds(rows, options.tokens)
    steps = dict(scheduler.batch.steps)
    del scheduler
    return {
        "shape": shape,
        "rows": rows,
        "tokens": options.tokens,
        "times_realtime": round(rows * 30 / seconds, 1),
        "ms_a_window": round(seconds / rows * 1000, 3),
        "steps": steps,
        "t4_times_realtime_by_counting": round(30 / predicted),
    }


def _window_round(
    batch: Batch, made: whisper.Model, mel: Callable[[int], torch.Tensor], options: argparse.Namespace
) -> None:
    """Fills the batch with so many windows at once as `mel` makes, and decodes the tokens of all its rows."""
    opening = made.special.opening(next(iter(made.special.languages), "en"), "transcribe")
    while batch.room:
        count = min(options.windows, batch.room)
        batch.store(made.encoder(mel(count).to(made.compute_dtype)))
        request = DecodeRequest(Chunk(None, np.zeros(0, np.float32), DecodeOptions(language="en")))
        batch.join([DecodeSequence(request, opening, 0.0) for _ in range(count)])
    for _ in range(0, options.tokens, batch.burst):
        batch.step()
    for row in list(batch.rows):
        batch.leave(row)


def faster_whisper(options: argparse.Namespace, sounds: Sequence[Sound], batch: int) -> float:
    """Seconds of its batched pipeline on the same windows joined; the folder is in CTranslate2's form."""
    peer = importlib.import_module("faster_whisper")
    kind = "float16" if options.device == "cuda" else "int8"
    pipeline = peer.BatchedInferencePipeline(
        peer.WhisperModel(str(options.ctranslate2), device=options.device, compute_type=kind)
    )
    whole = np.concatenate(sounds)

    def once() -> float:
        begin = time.perf_counter()
        list(pipeline.transcribe(whole, language=options.language, beam_size=1, batch_size=batch)[0])
        return time.perf_counter() - begin

    once()
    return statistics.median(once() for _ in range(options.repeats))


def transformers_pipeline(options: argparse.Namespace, sounds: Sequence[Sound], batch: int) -> float:
    """Seconds of transformers' pipeline on the same windows."""
    import transformers

    transformers.logging.set_verbosity_error()
    dtype = torch.float16 if options.device == "cuda" else torch.float32
    recognise = transformers.pipeline(
        "automatic-speech-recognition", model=str(options.model), dtype=dtype, device=options.device
    )
    asked = (
        {"language": options.language, "task": "transcribe", "num_beams": 1}
        if options.multilingual
        else {"num_beams": 1}
    )

    def once() -> float:
        begin = time.perf_counter()
        recognise(
            [{"raw": sound, "sampling_rate": SAMPLE_RATE} for sound in sounds], batch_size=batch, generate_kwargs=asked
        )
        return time.perf_counter() - begin

    once()
    return statistics.median(once() for _ in range(options.repeats))


def peers(options: argparse.Namespace, sounds: Sequence[Sound]) -> list[dict[str, Any]]:
    """Each that is installed; why the others were not measured."""
    audio = sum(len(sound) for sound in sounds) / SAMPLE_RATE
    ways: list[tuple[str, Callable[..., float], str]] = [
        ("transformers' pipeline", transformers_pipeline, "transformers")
    ]
    if options.ctranslate2:
        ways.append(("faster-whisper", faster_whisper, "faster_whisper"))
    found: list[dict[str, Any]] = []
    for (name, way, module), batch in itertools.product(ways, options.rows):
        if importlib.util.find_spec(module) is None:
            found.append({"engine": name, "error": f"{module} is not installed"})
            continue
        try:
            found.append(
                {"engine": name, "batch": batch, "times_realtime": round(audio / way(options, sounds, batch), 1)}
            )
        except Exception as error:  # a peer that cannot run here is told, and does not end the rest
            found.append({"engine": name, "batch": batch, "error": f"{type(error).__name__}: {error}"[:200]})
    return found


def service(options: argparse.Namespace) -> dict[str, Any]:
    """The whole service over HTTP: an hour's file, many clients with 7 s clips, and an 11 s clip alone."""
    from bench import clients, serve_load, served

    if shutil.which("ffmpeg") is None:
        raise RuntimeError("ffmpeg is not installed, and the service is not ready without it")
    recording = options.cache / "recording.wav"
    _write(recording, windows(options.audio, 112.0 if options.tiny else 3584.0))
    url = f"http://127.0.0.1:{options.port}"
    result: dict[str, Any] = {}
    with served.service(served.prepare(options.port, str(options.model), speakers=False), options.port) as ready:
        result["start_to_ready_seconds"] = round(ready, 2)
        whole = recording.read_bytes()
        clients.transcribe(url, serve_load.cut(recording, 7.0, 1, 0)[0])
        seconds = clients.transcribe(url, whole)[1]
        result["file"] = {
            "seconds": round(seconds, 2),
            "times_realtime": round(len(whole) / 2 / SAMPLE_RATE / seconds, 1),
        }
        alone = [clients.transcribe(url, serve_load.cut(recording, 11.0, 1, shift)[0])[1] for shift in range(1, 8)]
        result["clip_alone_p50_seconds"] = round(statistics.median(alone), 3)
        for count in (8, 32):
            clips = serve_load.cut(recording, 7.0, 16 * count, count)
            seconds, each = clients.load(url, clips, count)
            p95 = sorted(each)[len(each) * 95 // 100]
            figures = {"times_realtime": round(7.0 * len(clips) / seconds, 1), "p95_seconds": round(p95, 3)}
            result[f"{count}_clients"] = figures
    return result


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a minute of audio, few rows, one small shape")
    parser.add_argument("--model", type=Path, help="a transformers folder (default: Whisper-base)")
    parser.add_argument("--ctranslate2", type=Path, help="the same model in the form that faster-whisper reads")
    parser.add_argument("--audio", type=Path, help="a folder of WAVs")
    parser.add_argument("--language", default="en")
    parser.add_argument("--seconds", type=float, default=986.0)
    parser.add_argument("--rows", default="16,64")
    parser.add_argument("--shapes", default="small,large-v3")
    parser.add_argument("--tokens", type=int, default=75, help="of a window of a shape with random weights")
    parser.add_argument("--windows", type=int, default=16, help="of such a shape that are encoded together")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=float, default=270.0, help="seconds after which nothing more is begun")
    parser.add_argument("--without", default="", help="of engine,shapes,peers,service")
    parser.add_argument("--cache", type=Path, default=common.CACHE / "gpu")
    parser.add_argument("--port", type=int, default=18_451)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.tiny:
        options.seconds, options.rows, options.shapes, options.tokens, options.windows = 56.0, "2", "tiny", 4, 2
        options.repeats = 1
    options.rows = [int(count) for count in options.rows.split(",")]
    return options


def card(device: str) -> dict[str, Any]:
    if device == "cpu":
        return {"card": "none: these figures only show that the program works"}
    found = torch.cuda.get_device_properties(0)
    return {"card": found.name, "compute_capability": f"{found.major}.{found.minor}", "memory": found.total_memory}


def main() -> None:
    options = parse()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU here that torch can use; --device cpu --tiny tries the program itself")
    if options.model is None:
        from localcloud.hub.models import model_dir

        options.model = model_dir("whisper-tiny.en" if options.tiny else "whisper-base")
    options.multilingual = "lang_to_id" in (options.model / "generation_config.json").read_text()
    os.environ["HF_HUB_OFFLINE"] = "1"
    sounds = windows(options.audio, options.seconds)
    work: list[tuple[str, Callable[[], Any]]] = []
    for rows, words in itertools.product(options.rows, (False, True)):
        work.append(("engine", lambda rows=rows, words=words: engine_figures(options, sounds, rows, words=words)))  # type: ignore[misc]
    for shape in options.shapes.split(","):
        work.append(("shapes", lambda shape=shape: shape_figures(options, shape, options.rows[-1])))  # type: ignore[misc]
    work += [("service", lambda: service(options)), ("peers", lambda: peers(options, sounds))]
    began = time.monotonic()
    figures: dict[str, Any] = {"machine": common.machine(), **card(options.device), "torch": torch.__version__}
    for name, measure in work:
        if name in options.without.split(","):
            continue
        if time.monotonic() - began > options.limit:
            print(f"{name}: not measured, {options.limit:.0f} s are over")
            continue
        try:
            found = measure()
        except Exception as error:  # what cannot run here is told; the card is at hand for minutes
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        figures.setdefault(name, []).append(found)
        print(f"{name}: {found}", flush=True)
        common.write(options.json, figures)  # each time, should the card be taken away


if __name__ == "__main__":
    main()
