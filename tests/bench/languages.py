#!/usr/bin/env python3
"""Share of segments in the right language, of a recording in which Swedish and English take turns.

English is read by people (the folder's clips), or by espeak-ng with --synthetic; Swedish is espeak-ng's, in several
voices. A turn is one or two sentences, between pauses of 0.6 s. A segment's true language is the one that is spoken
for most of it. Also for recordings in one language alone, where none may change.
"""

import argparse
import itertools
import json
import subprocess
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

from transcribe.audio.recording import Recording  # noqa: E402 - found by the lines above
from transcribe.audio.vad import Vad  # noqa: E402
from transcribe.cli import transcribe  # noqa: E402
from transcribe.engine import Engine  # noqa: E402
from transcribe.types import DecodeOptions, Segment  # noqa: E402

from bench import common, corpus  # noqa: E402
from bench.hear import Limits  # noqa: E402

SWEDISH = (
    "Det var en gång en liten flicka som bodde med sin mormor i ett rött hus vid skogen.",
    "Regeringen presenterade på tisdagen ett nytt förslag om skatter och avgifter för kommande år.",
    "Jag skulle vilja boka ett bord för fyra personer på fredag klockan sju.",
    "Tåget mot Göteborg avgår från spår elva om ungefär tio minuter.",
    "Igår kväll regnade det så mycket att källaren blev alldeles översvämmad.",
    "Hon har arbetat som lärare i nästan trettio år och trivs fortfarande mycket bra.",
    "Vi måste köpa mjölk, bröd, smör och ost innan affären stänger.",
    "Forskarna har upptäckt att björnar kan minnas platser under mycket lång tid.",
    "Kan du berätta för mig hur man kommer till järnvägsstationen härifrån?",
    "Sommaren i Sverige är kort men ljus, och många åker till sin stuga vid havet.",
    "Min bror köpte en begagnad bil förra veckan, men den gick sönder redan på måndagen.",
    "Det är viktigt att barn får lära sig simma innan de börjar skolan.",
)
ENGLISH = (
    "The government presented a new proposal on taxes and fees for the coming year.",
    "I would like to book a table for four people on Friday at seven.",
    "The train to London leaves from platform eleven in about ten minutes.",
    "Yesterday evening it rained so much that the basement was flooded.",
    "She has worked as a teacher for almost thirty years and still enjoys it very much.",
    "We have to buy milk, bread, butter and cheese before the shop closes.",
)
VOICES = {"sv": ("sv", "sv+f2", "sv+m3"), "en": ("en-us", "en-gb+f3")}
PAUSE = 0.6  # seconds
Samples = NDArray[np.float32]
Turn = tuple[str, Samples]


def said(text: str, voice: str) -> Samples:
    """espeak-ng's speech, 16 kHz."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", file.name, text], check=True)
        return corpus.read(Path(file.name))


def synthetic(language: str, texts: Sequence[str]) -> list[Turn]:
    """A turn for each two sentences, the voices taking turns."""
    pairs = [" ".join(texts[at : at + 2]) for at in range(0, len(texts), 2)]
    return [(language, said(text, voice)) for text, voice in zip(pairs, itertools.cycle(VOICES[language]))]


def recording(turns: Sequence[Turn]) -> tuple[Samples, list[tuple[float, float, str]]]:
    """The turns with pauses between them, and when which language is spoken."""
    parts, spoken, at = list[Samples](), list[tuple[float, float, str]](), 0.0
    for language, samples in turns:
        spoken.append((at, at + len(samples) / corpus.RATE, language))
        parts += [samples, np.zeros(int(PAUSE * corpus.RATE), np.float32)]
        at = spoken[-1][1] + PAUSE
    return np.concatenate(parts), spoken


def true_language(segment: Segment, spoken: Sequence[tuple[float, float, str]]) -> str:
    """The language that is spoken for most of the segment."""
    return max(spoken, key=lambda span: min(span[1], segment.end) - max(span[0], segment.start))[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--audio", type=Path, default=corpus.DEFAULT, help="a folder of English clips, FLAC")
    parser.add_argument("--clips", type=int, default=12, help="how many of it")
    parser.add_argument("--synthetic", action="store_true", help="English of espeak-ng in place of them")
    parser.add_argument("--model", type=Path, required=True, help="a transformers directory")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    files = sorted(options.audio.glob("*.flac"))
    chosen = files[:: max(1, len(files) // options.clips)][: options.clips]
    english = synthetic("en", ENGLISH * 2) if options.synthetic else [("en", corpus.read(path)) for path in chosen]
    swedish = synthetic("sv", SWEDISH)
    mixed = [turn for pair in zip(swedish, english, strict=False) for turn in pair]
    engine = Engine.load(
        options.model, device="cpu", dtype="auto", max_chunks=16, cache_dir=common.CACHE / "engine-auto"
    )
    vad, figures = Vad.load(), dict[str, Any]()
    asked = DecodeOptions(language=None, candidates=("sv", "en"), multilingual=True)
    for name, turns in {"in turn": mixed, "swedish": swedish, "english": english[:6]}.items():
        samples, spoken = recording(turns)
        began = time.perf_counter()
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            soundfile.write(file.name, samples, corpus.RATE, subtype="PCM_16")
            with Recording(Path(file.name), Limits(), vad) as heard:
                transcript = transcribe(engine, heard, asked).transcript
        right = [segment.language == true_language(segment, spoken) for segment in transcript.segments]
        figures[name] = {
            "seconds": round(len(samples) / corpus.RATE, 1),
            "segments": len(right),
            "right": round(100 * sum(right) / max(1, len(right)), 1),
            "language": transcript.language,
        }
        print(f"{name}: {json.dumps(figures[name])} ({time.perf_counter() - began:.0f} s)", flush=True)
        for segment, good in zip(transcript.segments, right, strict=True):
            if not good:
                print(f"  {segment.start:.1f}-{segment.end:.1f} {segment.language} {segment.text}", flush=True)
    common.write(options.output, {"machine": common.machine(), **figures})


if __name__ == "__main__":
    main()
