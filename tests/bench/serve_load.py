#!/usr/bin/env python3
"""Latency and throughput of a running server: clients side by side and in turn, and a short clip beside the pipeline.

Without --url it runs the service of this tree on a port of its own. The clips are cut from a folder's recordings.
"""

import argparse
import io
import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"))]

import soundfile  # noqa: E402
from localcloud.hub.models import model_dir  # noqa: E402 - found by the line above

from bench import clients, common, corpus, served  # noqa: E402

SHIFT_SECONDS = 0.05
SHORT_SECONDS = 5.0


def cut(recording: Path, seconds: float, count: int, shift: int) -> list[bytes]:
    """`count` WAVs of `seconds` from a recording, one after the other, from its start again when it ends.

    They begin `shift` · SHIFT_SECONDS later: the service answers the same sound again from what it has stored.
    """
    samples, rate = soundfile.read(recording, dtype="int16")
    length = int(seconds * rate)
    clips = []
    for number in range(count):
        start = (number * length + int(shift * SHIFT_SECONDS * rate)) % max(1, len(samples) - length)
        with io.BytesIO() as file:
            soundfile.write(file, samples[start : start + length], rate, format="WAV")
            clips.append(file.getvalue())
    return clips


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    chosen = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 90, 99)}
    return {name: round(value, 3) for name, value in chosen.items()}


def side_by_side(url: str, options: argparse.Namespace, recording: Path) -> dict[str, Any]:
    """Much the same clips by --clients clients and by one, in turns."""
    together, in_turn, latencies = [], [], list[float]()
    for repeat in range(options.repeats):
        first, second = (cut(recording, options.clip_seconds, options.clients, 2 * repeat + which) for which in (1, 2))
        seconds, each = clients.load(url, first, options.clients)
        together.append(seconds)
        latencies += each
        in_turn.append(clients.load(url, second, 1)[0])
    audio = options.clip_seconds * options.clients
    ratio = statistics.median(in_turn) / statistics.median(together)
    return {
        "clients": options.clients,
        "clip_seconds": options.clip_seconds,
        "times_realtime_together": round(audio / statistics.median(together), 1),
        "times_realtime_in_turn": round(audio / statistics.median(in_turn), 1),
        "throughput_ratio": round(ratio, 2),
        "latency": percentiles(latencies),
    }


def short_clip(url: str, options: argparse.Namespace, recording: Path) -> dict[str, Any]:
    """One client's 5 s clip over HTTP, and the same in transformers' pipeline without any server."""
    file = common.CACHE / "short.wav"
    file.write_bytes(cut(recording, SHORT_SECONDS, 1, 0)[0])
    hear, folder = Path(__file__).with_name("hear.py"), model_dir("whisper-base")
    ours, theirs = [], []
    for repeat in range(options.repeats):
        clips = (cut(recording, SHORT_SECONDS, 1, 3 * repeat + which)[0] for which in range(3))
        ours.append(statistics.median(clients.transcribe(url, clip)[1] for clip in clips))
        told = common.run_json([sys.executable, hear, "pipeline:8", folder, "en", "1", file, *[file] * 3])
        theirs.append(told["seconds"] / 3)
    medians = statistics.median(ours), statistics.median(theirs)
    return {"http_seconds": medians[0], "pipeline_seconds": medians[1], "ratio": round(medians[0] / medians[1], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--url", help="a running server (default: start ours)")
    parser.add_argument("--audio", type=Path, help="a folder with transcripts.tsv, or a file")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--clip-seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--port", type=int, default=18_441)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    recording = corpus.prepare(options.audio, None, options.clip_seconds * options.clients).files[0]
    described = common.machine()
    url = options.url or f"http://127.0.0.1:{options.port}"
    with nullcontext() if options.url else served.service(served.prepare(options.port), options.port):
        clients.load(url, cut(recording, options.clip_seconds, options.clients, 0), options.clients)  # warms it
        many, short = side_by_side(url, options, recording), short_clip(url, options, recording)
    print(
        f"{many['clients']} clients with {many['clip_seconds']:.0f} s clips: {many['times_realtime_together']} × real "
        f"time together, {many['times_realtime_in_turn']} × in turn: {many['throughput_ratio']} ×; seconds a request: "
        + ", ".join(f"{name} {value}" for name, value in many["latency"].items())
    )
    print(
        f"5 s clip: {short['http_seconds']:.3f} s over HTTP, {short['pipeline_seconds']:.3f} s in the pipeline, "
        f"ratio {short['ratio']:.2f}"
    )
    common.write(options.json, {"machine": described, "side_by_side": many, "short_clip": short})


if __name__ == "__main__":
    main()
