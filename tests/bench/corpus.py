"""What the benchmarks listen to: recordings with known texts, joined to the length that is wanted."""

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from . import common

RATE = 16_000
PAUSE_SECONDS = 0.5  # between the clips that are joined
WARM_SECONDS = 10  # of a file, heard before it
DEFAULT = common.ROOT / "tests" / "audio"


@dataclass(frozen=True)
class Work:
    """Files to transcribe, one to warm up with, and the text of the files together (None when it is not known)."""

    files: tuple[Path, ...]
    warm: Path
    seconds: float
    reference: str | None

    def word_error_rate(self, texts: Sequence[str]) -> float | None:
        """In percent, after Whisper's English normaliser on both sides."""
        if self.reference is None:
            return None
        import jiwer
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        normal = EnglishTextNormalizer({})
        return round(100 * float(jiwer.wer(normal(self.reference), normal(" ".join(texts)))), 2)


def read(path: Path) -> NDArray[np.float32]:
    """A recording's samples: float32 of [time], 16 kHz, mono."""
    import librosa

    samples, _ = librosa.load(path, sr=RATE)
    return np.asarray(samples, dtype=np.float32)


def clips(folder: Path) -> list[tuple[Path, str]]:
    """The recordings of a folder with their texts, from its transcripts.tsv."""
    with (folder / "transcripts.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    named = [(name if Path(name).suffix else f"{name}.flac", text) for name, text in rows]
    return [(folder / name, text) for name, text in named]


def prepare(audio: Path | None, reference: Path | None, seconds: float) -> Work:
    """A file, or a folder's clips joined, again and again, to at least `seconds`: 16 kHz, mono, for every engine."""
    folder = audio or DEFAULT
    if folder.is_file():
        text = reference.read_text(encoding="utf-8") if reference else None
        samples = read(folder)
        return _work(samples, samples[: WARM_SECONDS * RATE], text)
    pause = np.zeros(int(PAUSE_SECONDS * RATE), np.float32)
    parts, texts, length = [], [], 0
    known = [(read(path), text) for path, text in clips(folder)]
    for samples, text in itertools.cycle(known):
        parts += [samples, pause]
        texts.append(text)
        length += len(samples) + len(pause)
        if length >= seconds * RATE and len(texts) % len(known) == 0:
            break
    return _work(np.concatenate(parts), known[0][0], " ".join(texts))


def _work(samples: NDArray[np.float32], beginning: NDArray[np.float32], text: str | None) -> Work:
    common.CACHE.mkdir(parents=True, exist_ok=True)
    whole, warm = common.CACHE / "joined.wav", common.CACHE / "warm.wav"
    soundfile.write(whole, samples, RATE)
    soundfile.write(warm, beginning, RATE)
    return Work((whole,), warm, len(samples) / RATE, text)
