#!/usr/bin/env python3
"""Speakers: who spoke when in mixtures of readers and in meetings, how many there are, known voices, and what it costs.

A folder of readers holds READER-….flac (16 kHz, mono), one of meetings NAME.flac and reference.rttm. Everything runs
in the command line's way, text included: turns are what the transcript's segments say. The diarization error is NIST's:
missed, false and confused speech over the reference's, by the best mapping of names.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("service", "tools", "tests")]

from localcloud.hub.models import model_dir  # noqa: E402
from support.speaker_models import real_model  # noqa: E402
from transcribe import cli  # noqa: E402
from transcribe.audio.recording import Recording  # noqa: E402
from transcribe.audio.vad import Vad  # noqa: E402
from transcribe.engine import Engine  # noqa: E402
from transcribe.speakers.network import SpeakerNetwork  # noqa: E402
from transcribe.types import SAMPLE_RATE, DecodeOptions, Segment, SpeakerOptions  # noqa: E402
from transcribe.worker.listener import Listener  # noqa: E402

from bench.common import CACHE, machine, write  # noqa: E402 - found by the line above

Turn = tuple[float, float, str]  # start and end in seconds, and who
Sound = NDArray[np.float32]
FRAMES = 100  # a second, in which speech is counted
COLLAR = 0.25  # seconds around each border of a reference turn that are not judged in mixtures
TURNS = 24
KNOWN_SECONDS = 10.0


@dataclass(frozen=True)
class Limits:
    """Of what is decoded here."""

    audio_seconds: float = 36_000
    decode_seconds: float = 3600
    decode_bytes: int = 1 << 30


@dataclass
class Errors:
    """Seconds: of the reference's speech, and those that are missed, false or another's."""

    speech: float = 0.0
    missed: float = 0.0
    false: float = 0.0
    confused: float = 0.0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    @property
    def rate(self) -> float:
        """The diarization error rate."""
        return (self.missed + self.false + self.confused) / max(self.speech, 1e-9)


def errors(reference: Sequence[Turn], found: Sequence[Turn], collar: float) -> Errors:
    """The diarization error; several may speak at once in either."""
    frames = round(FRAMES * (1 + max(end for _, end, _ in (*reference, *found))))
    judged = np.ones(frames, np.bool_)
    for border in (moment for start, end, _ in reference for moment in (start, end)):
        judged[max(0, round(FRAMES * (border - collar))) : round(FRAMES * (border + collar))] = collar == 0
    spoken, said = (_spoken(turns, frames)[:, judged] for turns in (reference, found))
    shared = spoken.astype(np.int64) @ said.T.astype(np.int64)
    right = sum((spoken[a] & said[b]).astype(np.int64) for a, b in zip(*linear_sum_assignment(-shared), strict=True))
    wanted, given = spoken.sum(0), said.sum(0)
    sums = (wanted, np.maximum(wanted - given, 0), np.maximum(given - wanted, 0), np.minimum(wanted, given) - right)
    return Errors(*(float(np.sum(part)) / FRAMES for part in sums))


def _spoken(turns: Sequence[Turn], frames: int) -> NDArray[np.bool_]:
    names = sorted({name for *_, name in turns})
    found = np.zeros((len(names), frames), np.bool_)
    for start, end, name in turns:
        found[names.index(name), round(FRAMES * start) : round(FRAMES * end)] = True
    return found


def mixture(readers: dict[str, list[Sound]], count: int, seed: int) -> tuple[Sound, list[Turn]]:
    """TURNS turns of 1.5 to 8 s with pauses of 0.1 to 0.8 s between, by `count` readers at their own levels; half of
    the mixtures in noise."""
    chance, noise = random.Random(seed), np.random.default_rng(seed)
    names = chance.sample(sorted(readers), count)
    levels = {name: 10 ** (chance.uniform(-4, 4) / 20) for name in names}
    parts: list[Sound] = []
    turns: list[Turn] = []
    at = 0
    for number in range(TURNS):
        others = [name for name in names if count == 1 or not turns or name != turns[-1][2]]
        name = names[number] if number < count else chance.choice(others)
        sound, length = chance.choice(readers[name]), round(SAMPLE_RATE * chance.uniform(1.5, 8))
        begin = chance.randrange(max(1, len(sound) - length))
        pause = np.zeros(round(SAMPLE_RATE * chance.uniform(0.1, 0.8)), np.float32)
        said = sound[begin : begin + length] * np.float32(levels[name])
        turns.append(((at + len(pause)) / SAMPLE_RATE, (at + len(pause) + len(said)) / SAMPLE_RATE, name))
        parts += [pause, said]
        at += len(pause) + len(said)
    mixed = np.concatenate(parts)
    if seed % 2:
        mixed += noise.normal(0, 10 ** (-30 / 20) * np.sqrt(np.mean(mixed**2)), len(mixed)).astype(np.float32)
    return np.clip(mixed, -1, 1), turns


class Bench:
    """The models, and what was measured."""

    def __init__(self, model: str, language: str) -> None:
        self.vad, self.network = Vad.load(), SpeakerNetwork.load(real_model())
        self.engine = Engine.load(
            model_dir(model), device="cpu", dtype="auto", max_chunks=None, cache_dir=CACHE / "engine-auto"
        )
        self.language = language
        self.folder = Path(tempfile.mkdtemp())
        self.engine.warm_up()

    def run(self, sound: Sound, known: dict[str, Sound] | None) -> tuple[tuple[Segment, ...], float]:
        """The segments and the processor's seconds that it took; without speakers if `known` is None."""
        listener, options = None, DecodeOptions(language=self.language)
        if known is not None:
            options = replace(options, speakers=SpeakerOptions(known_names=tuple(known)))
            listener = Listener(self.network, options.speakers or SpeakerOptions())
            for name, voice in known.items():
                with Recording(self._file(voice), Limits(), self.vad) as recording:
                    listener.learn(name, recording)
        began = time.process_time()
        with Recording(self._file(sound), Limits(), self.vad) as recording:
            answer = cli.transcribe(self.engine, recording, options, listener)
        return answer.transcript.segments, time.process_time() - began

    def turns(self, sound: Sound, known: dict[str, Sound]) -> list[Turn]:
        return [(one.start, one.end, str(one.speaker)) for one in self.run(sound, known)[0]]

    def _file(self, sound: Sound) -> Path:
        path = self.folder / "sound.wav"
        soundfile.write(path, sound, SAMPLE_RATE, subtype="PCM_16")
        return path


def of_readers(bench: Bench, folder: Path, mixtures: int, seed: int) -> dict[str, Any]:
    """Error, count and known voices for mixtures of 1 to 4 readers, and the cost."""
    readers: dict[str, list[Sound]] = {}
    for path in sorted(folder.glob("*.flac")):
        readers.setdefault(path.name.split("-")[0], []).append(soundfile.read(path, dtype="float32")[0])
    voices = {name: np.concatenate([sounds.pop(0), sounds.pop(0)]) for name, sounds in readers.items()}
    figures: dict[str, Any] = {}
    named = asked = 0
    for count in range(1, min(4, len(readers)) + 1):
        total, right, worst = Errors(), 0, 0.0
        for number in range(mixtures):
            sound, reference = mixture(readers, count, seed + 100 * count + number)
            found = bench.turns(sound, {})
            error = errors(reference, found, COLLAR)
            total, worst = total + error, max(worst, error.rate)
            right += len({name for *_, name in found}) == count
            people = sorted({name for *_, name in reference})
            if count > 1:
                turns = bench.turns(sound, {name: voices[name][: int(KNOWN_SECONDS * SAMPLE_RATE)] for name in people})
                named += sum(mostly(turns, reference, name) == name for name in people)
                asked += len(people)
        figures[f"{count} readers"] = {"error": total.rate, **asdict(total), "worst": worst, "count_right": right}
        print(f"{count} readers: error {total.rate:.1%} (worst {worst:.1%}), count {right}/{mixtures}", flush=True)
    figures["known"] = {"right": named, "of": asked}
    figures["cost"] = cost(bench, mixture(readers, 2, seed)[0])
    print(f"known voices {named}/{asked}; cost {figures['cost']}", flush=True)
    return figures


def mostly(turns: Sequence[Turn], reference: Sequence[Turn], name: str) -> str:
    """What the person of that name in the reference is mostly called."""
    times: dict[str, float] = {}
    for start, end, who in turns:
        shared = sum(max(0.0, min(end, b) - max(start, a)) for a, b, other in reference if other == name)
        times[who] = times.get(who, 0.0) + shared
    return max(times, key=lambda who: times[who])


def cost(bench: Bench, sound: Sound, repeats: int = 3) -> dict[str, float]:
    """The processor's seconds without and with speakers, in turns; the best of each."""
    pairs = [(bench.run(sound, None)[1], bench.run(sound, {})[1]) for _ in range(repeats)]
    without, with_speakers = (min(column) for column in zip(*pairs, strict=True))
    return {"sound": len(sound) / SAMPLE_RATE, "without": without, "with": with_speakers}


def of_meetings(bench: Bench, folder: Path) -> dict[str, Any]:
    """The error without a collar, overlapping speech counted."""
    references: dict[str, list[Turn]] = {}
    for line in (folder / "reference.rttm").read_text().splitlines():
        fields = line.split()
        start, length = float(fields[3]), float(fields[4])
        references.setdefault(fields[1], []).append((start, start + length, fields[7]))
    total, figures = Errors(), {}
    for path in sorted(folder.glob("*.flac")):
        found = bench.turns(soundfile.read(path, dtype="float32")[0], {})
        error = errors(references[path.stem], found, 0.0)
        total += error
        figures[path.stem] = asdict(error)
        print(f"{path.stem}: {error.rate:.1%} {error}", flush=True)
    parts = ", ".join(f"{name} {part / total.speech:.1%}" for name, part in asdict(total).items() if name != "speech")
    print(f"meetings: error {total.rate:.1%}: {parts}", flush=True)
    return {"error": total.rate, **asdict(total), "recordings": figures}


def main() -> None:
    """Prints the figures, and writes them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=Path)
    parser.add_argument("--meetings", type=Path)
    parser.add_argument("--mixtures", type=int, default=10, help="of each number of readers (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--language", default="en")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine()}
    bench = Bench(options.model, options.language)
    if options.meetings:
        figures["meetings"] = of_meetings(bench, options.meetings)
    if options.readers:
        figures["readers"] = of_readers(bench, options.readers, options.mixtures, options.seed)
    write(options.out, figures)


if __name__ == "__main__":
    main()
