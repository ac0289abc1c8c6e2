#!/usr/bin/env python3
"""Speed, memory and word error rate of our engine beside its peers: same weights, same audio, runs interleaved.

Run it in an environment with service/cpu.lock and tests/requirements.lock, as `./tests/run` makes; the peers get one of
their own. Greedy everywhere. With --concurrency ours and the pipeline batch across the recordings; the others cannot
and hear them in turn.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"))]

from bench import common, corpus, peermodels, plot  # noqa: E402 - found by the line above

DEFAULT_ENGINES = (
    "ours:auto,faster-whisper:int8-8,faster-whisper:int8-16,faster-whisper:float32-8,faster-whisper:float32-16,"
    "whisper.cpp:q8_0,whisper.cpp:f16,openai-whisper,pipeline:8"
)


def place(engine: str, model: Path) -> tuple[Path, Path]:
    """The interpreter that an engine runs in, and the weights in the form that it reads."""
    name, _, variant = engine.partition(":")
    if name in ("ours", "pipeline"):
        return Path(sys.executable), model
    python = common.peers_python()
    if name == "faster-whisper":
        return python, peermodels.ctranslate2(python)
    return python, peermodels.ggml(model, variant) if name == "whisper.cpp" else peermodels.openai(model)


def run(engine: str, options: argparse.Namespace, work: corpus.Work) -> dict[str, Any]:
    """One run of one engine in a process of its own."""
    python, model = place(engine, options.model)
    files = list(work.files) * options.concurrency
    hear = Path(__file__).with_name("hear.py")
    result: dict[str, Any] = common.run_json(
        [python, hear, engine, model, options.language, str(options.concurrency), work.warm, *files]
    )
    result["audio_seconds"] = work.seconds * options.concurrency
    result["word_error_rate"] = work.word_error_rate(result.pop("texts")[: len(work.files)])
    return result


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over an engine's runs."""
    measured = ("seconds", "cpu_seconds", "peak_mb", "load_seconds")
    median = {key: statistics.median(run[key] for run in runs) for key in measured}
    audio = runs[0]["audio_seconds"]
    return {
        "engine": runs[0]["engine"],
        **{key: round(value, 2) for key, value in median.items()},
        "times_realtime": round(audio / median["seconds"], 1),
        "times_realtime_per_cpu_second": round(audio / median["cpu_seconds"], 1),
        "word_error_rate": runs[0]["word_error_rate"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'engine':26s} {'seconds':>8s} {'× real':>7s} {'CPU s':>7s} {'MB':>6s} {'WER %':>6s}"]
    for row in rows:
        error = "-" if row["word_error_rate"] is None else f"{row['word_error_rate']:.2f}"
        lines.append(
            f"{row['engine']:26s} {row['seconds']:8.2f} {row['times_realtime']:7.1f} {row['cpu_seconds']:7.2f} "
            f"{row['peak_mb']:6.0f} {error:>6s}"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--audio", type=Path, help="a file, or a folder with transcripts.tsv (name, tab, text)")
    parser.add_argument("--reference", type=Path, help="the text of --audio, when it is a file")
    parser.add_argument("--seconds", type=float, default=240.0, help="length that a folder's clips are joined to")
    parser.add_argument("--language", default="en")
    parser.add_argument("--model", type=Path, help="a transformers directory (default: Whisper-base)")
    parser.add_argument("--engines", default=DEFAULT_ENGINES)
    parser.add_argument("--concurrency", type=int, default=1, help="recordings at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="SVG of the comparison")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.model is None:
        from localcloud.hub.models import model_dir

        options.model = model_dir("whisper-base")
    work = corpus.prepare(options.audio, options.reference, options.seconds)
    described = common.machine()
    engines = options.engines.split(",")
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for repeat in range(options.repeats):
        for engine in engines:
            runs[engine].append(run(engine, options, work))
            print(f"{repeat + 1}/{options.repeats} {engine}: {runs[engine][-1]['seconds']:.2f} s", file=sys.stderr)
        rows = [summary(runs[engine]) for engine in engines]  # written each time, should the next be cut short
        common.write(options.json, {"machine": described, "audio_seconds": work.seconds, "engines": rows, "runs": runs})
    print(f"{work.seconds:.0f} s of audio on {described['cores']} cores of {described['processor']}\n{table(rows)}")
    if options.plot is not None:
        options.plot.write_text(plot.bars(rows, f"{work.seconds:.0f} s of read English, {described['cores']} cores"))


if __name__ == "__main__":
    main()
