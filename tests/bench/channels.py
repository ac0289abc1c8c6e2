#!/usr/bin/env python3
"""Word error rate of two readers, one on each channel: each alone, and with both channels heard by themselves.

Every second clip of a folder is on the second channel. "at once": both read without pause; "in turns": one after the
other; "leak": at once, and each is 25 dB softer on the other's channel. `mix` is what becomes of it without channels.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"))]
sys.path.append(str(Path(__file__).resolve().parents[2] / "service"))

from transcribe.audio.recording import Hearing, Recording  # noqa: E402
from transcribe.audio.vad import Vad  # noqa: E402
from transcribe.cli import transcribe  # noqa: E402
from transcribe.engine import Engine  # noqa: E402
from transcribe.types import DecodeOptions  # noqa: E402

from bench import common, corpus  # noqa: E402 - found by the lines above
from bench.hear import Limits  # noqa: E402

Samples = NDArray[np.float32]
LEAK = 10 ** (-25 / 20)


def padded(sounds: Sequence[Samples]) -> Samples:
    """[samples, channels]"""
    longest = max(len(sound) for sound in sounds)
    return np.stack([np.pad(sound, (0, longest - len(sound))) for sound in sounds], 1)


def conditions(clips: Sequence[tuple[Samples, Samples]]) -> dict[str, Samples]:
    """Pairs of clips as two channels."""
    pause = np.zeros(int(corpus.PAUSE_SECONDS * corpus.RATE), np.float32)
    at_once = padded([np.concatenate([part for pair in clips for part in (pair[side], pause)]) for side in (0, 1)])
    turns = [
        np.pad(clip[:, None], ((0, len(pause)), (side, 1 - side))) for pair in clips for side, clip in enumerate(pair)
    ]
    return {"at once": at_once, "in turns": np.concatenate(turns), "leak": at_once + LEAK * at_once[:, ::-1]}


def texts(engine: Engine, vad: Vad, samples: Samples, channels: str) -> list[str]:
    """What is heard, of each channel, or of the mix."""
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "a.wav", samples, corpus.RATE, subtype="PCM_16")
        with Recording(Path(folder) / "a.wav", Limits(), vad, Hearing(channels)) as recording:
            segments = transcribe(engine, recording, DecodeOptions(language="en")).transcript.segments
    heard = sorted({segment.channel for segment in segments}, key=lambda channel: channel or 0)
    return ["".join(segment.text for segment in segments if segment.channel == channel) for channel in heard]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--audio", type=Path, default=corpus.DEFAULT, help="a folder with transcripts.tsv, in English")
    parser.add_argument("--clips", type=int, default=40, help="how many of it")
    parser.add_argument("--model", type=Path, required=True, help="a transformers directory")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    clips = corpus.clips(options.audio)[: options.clips // 2 * 2]
    sounds = [corpus.read(path) for path, _ in clips]
    cache = common.CACHE / "engine-auto"
    engine = Engine.load(options.model, device="cpu", dtype="auto", max_chunks=16, cache_dir=cache)
    vad = Vad.load()
    works = [corpus.Work((), clips[0][0], 0.0, " ".join(text for _, text in clips[side::2])) for side in (0, 1)]

    def rates(samples: Samples, channels: str) -> list[float | None]:
        found = texts(engine, vad, samples, channels)
        return [work.word_error_rate([text]) for work, text in zip(works, found * (3 - len(found)), strict=True)]

    figures: dict[str, Any] = {"machine": common.machine()}
    for name, samples in conditions(list(zip(sounds[::2], sounds[1::2], strict=True))).items():
        began = time.perf_counter()
        figures[name] = {
            "seconds": round(len(samples) / corpus.RATE, 1),
            "alone": [rates(samples[:, [side]], "mix")[side] for side in (0, 1)],
            **{channels: rates(samples, channels) for channels in ("separate", "auto", "mix")},
        }
        print(f"{name}: {json.dumps(figures[name])} ({time.perf_counter() - began:.0f} s)", flush=True)
    common.write(options.output, figures)


if __name__ == "__main__":
    main()
