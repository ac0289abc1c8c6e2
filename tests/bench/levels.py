#!/usr/bin/env python3
"""Word error rate of our engine and a peer by level and by noise: the same clips, each a 16-bit WAV of its own.

Environments and weights as for compare.py. Quiet speech in 16 bits has lost what lies below one step, for every engine
alike; so the peer's column says how much of a loss is the recording's.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"))]

from bench import common, compare, corpus  # noqa: E402 - found by the line above

LEVELS = (0, -20, -40, -50)  # dB, of the clips as they are
NOISES = (20, 10)  # dB that the speech lies above white noise, at the clips' own level
ENGINES = "ours:auto,faster-whisper:int8-8"


def noisy(samples: NDArray[np.float32], ratio: float, seed: int) -> NDArray[np.float32]:
    """The samples, float32 of [time], with white noise `ratio` dB below their power."""
    power = float(np.mean(samples**2)) / 10 ** (ratio / 10)
    noise = np.random.default_rng(seed).normal(0, np.sqrt(power), len(samples))
    return np.clip(samples + noise, -1, 1).astype(np.float32)


def conditions(samples: NDArray[np.float32], seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The clip in every condition, with the condition's name."""
    for level in LEVELS:
        yield f"{level} dB", samples * np.float32(10 ** (level / 20))
    for ratio in NOISES:
        yield f"noise {ratio} dB", noisy(samples, ratio, seed)


def write_clips(clips: list[tuple[Path, str]], folder: Path) -> dict[str, list[Path]]:
    """Writes each clip in each condition; returns the files by condition."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {}
    for number, (clip, _) in enumerate(clips):
        for name, samples in conditions(corpus.read(clip), number):
            file = folder / f"{name.replace(' ', '_')}-{number}.wav"
            soundfile.write(file, samples, corpus.RATE, subtype="PCM_16")
            files.setdefault(name, []).append(file)
    return files


def rates(engine: str, options: argparse.Namespace, files: dict[str, list[Path]], text: str) -> dict[str, Any]:
    """The word error rate of an engine in each condition, in percent; one process hears all of them."""
    python, model = compare.place(engine, options.model)
    every = [file for some in files.values() for file in some]
    command: list[str | Path] = [
        python,
        Path(__file__).with_name("hear.py"),
        engine,
        model,
        "en",
        "1",
        every[0],
        *every,
    ]
    texts = iter(common.run_json(command)["texts"])
    found: dict[str, Any] = {}
    for name, some in files.items():
        work = corpus.Work(tuple(some), some[0], 0.0, text)
        found[name] = work.word_error_rate([next(texts) for _ in some])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--audio", type=Path, default=corpus.DEFAULT, help="a folder with transcripts.tsv, in English")
    parser.add_argument("--clips", type=int, default=20, help="how many of it")
    parser.add_argument("--model", type=Path, help="a transformers directory (default: Whisper-base)")
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.model is None:
        from localcloud.hub.models import model_dir

        options.model = model_dir("whisper-base")
    clips = corpus.clips(options.audio)[: options.clips]
    files = write_clips(clips, common.CACHE / "levels")
    text = " ".join(text for _, text in clips)
    table = {engine: rates(engine, options, files, text) for engine in options.engines.split(",")}
    common.write(options.json, {"clips": len(clips), "word_error_rate": table})
    print(f"{'WER %':14s}" + "".join(f"{engine:>24s}" for engine in table))
    for name in files:
        print(f"{name:14s}" + "".join(f"{table[engine][name]:24.2f}" for engine in table))


if __name__ == "__main__":
    main()
