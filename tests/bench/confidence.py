"""Whether the probability of a word says how likely it is right: the area under the curve, and a plot of reliability.

    python -m tests.bench.confidence hear MODEL WORDS [--audio FOLDER]… [--babble FOLDER]
    python -m tests.bench.confidence judge WORDS [--plot FILE.svg]

`hear` transcribes the folders' clips (with transcripts.tsv), clean and in noise, and writes the words: a line of JSON
for each, with whether it is right. `judge` reads that file. Fits are judged on clips that they were not fitted to.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import common
from .corpus import DEFAULT, RATE, clips, read

sys.path.insert(0, str(common.ROOT / "service"))
from transcribe.confidence import SUREST, WORST_WINDOW, probability_right
from transcribe.engine import Chunk, Engine
from transcribe.types import DecodeOptions

NOISES: tuple[tuple[str | None, int], ...] = (
    (None, 0),
    ("white", 10),
    ("white", 5),
    ("white", 0),
    ("babble", 5),
    ("babble", 0),
)  # with dB
VOICES = 6  # in a babble
FOLDS, BINS = 10, 10
Floats = NDArray[np.float64]


def hear(options: argparse.Namespace) -> None:
    """Writes the words of every clip in every noise."""
    engine = Engine.load(
        options.model, device="cpu", dtype="auto", max_chunks=16, cache_dir=common.CACHE / "confidence"
    )
    chance = np.random.default_rng(1)
    known = [(path, read(path), text) for folder in options.audio or [DEFAULT] for path, text in clips(folder)]
    voices = [read(path) for path in sorted(options.babble.glob("*.flac"))[::6]] if options.babble else []
    cases = [(one, noise) for one in known for noise in NOISES if noise[0] != "babble" or voices]
    asked = DecodeOptions(language="en", words=True)
    chunks = [Chunk(None, noisy(samples, noise, voices, chance), asked) for (_, samples, _), noise in cases]
    with options.words.open("w", encoding="utf-8") as file:
        for ((path, _, text), (kind, decibels)), result in zip(cases, engine.transcribe(chunks), strict=True):
            spoken = [(word, segment) for segment in result.segments for word in segment.words or ()]
            right = rights([word.word for word, _ in spoken], text)
            for (word, segment), good in zip(spoken, right, strict=True):
                if good is not None:
                    case = {"clip": path.name, "noise": f"{kind or 'none'} {decibels}", "word": word.word.strip()}
                    facts = {"probability": word.probability, "avg_logprob": segment.avg_logprob, "right": good}
                    print(json.dumps(case | facts, ensure_ascii=False), file=file)


def noisy(
    samples: NDArray[np.float32], added: tuple[str | None, int], voices: Sequence[Any], chance: np.random.Generator
) -> NDArray[np.float32]:
    """The clip with noise so many decibels below it."""
    kind, decibels = added
    if kind is None:
        return samples
    noise = chance.standard_normal(len(samples))
    if kind == "babble":
        noise = np.zeros(len(samples))
        for _ in range(VOICES):
            voice = np.resize(
                np.roll(voices[int(chance.integers(len(voices)))], int(chance.integers(RATE))), len(samples)
            )
            noise += voice / np.sqrt(np.mean(voice**2) + 1e-9)
    mixed = samples + noise * np.sqrt(np.mean(samples**2) / np.mean(noise**2) / 10 ** (decibels / 10))
    return np.asarray(mixed / max(1.0, np.abs(mixed).max()), dtype=np.float32)


def rights(words: Sequence[str], text: str) -> list[bool | None]:
    """Whether each word is in the text, by the cheapest alignment; None for marks and digits, which nobody judges."""
    parts = [(number, part) for number, word in enumerate(words) for part in plain(word)]
    good = aligned(plain(text), [part for _, part in parts])
    judged: list[bool | None] = [None] * len(words)
    for (number, _), one in zip(parts, good, strict=True):
        judged[number] = one and judged[number] is not False
    return [None if re.search(r"\d", word) else one for word, one in zip(words, judged, strict=True)]


def plain(text: str) -> list[str]:
    """The text's words in small letters without marks."""
    return re.findall(r"[a-z0-9']+", text.lower().replace("’", "'"))


def aligned(reference: Sequence[str], heard: Sequence[str]) -> list[bool]:
    """Which of the words that were heard stand in the reference at their place."""
    cost = np.add.outer(np.arange(len(reference) + 1), np.arange(len(heard) + 1))
    for i, said in enumerate(reference, start=1):
        for j, word in enumerate(heard, start=1):
            cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + (said != word))
    good, i, j = [False] * len(heard), len(reference), len(heard)
    while i and j:
        if cost[i, j] == cost[i - 1, j - 1] + (reference[i - 1] != heard[j - 1]):
            good[j - 1] = reference[i - 1] == heard[j - 1]
            i, j = i - 1, j - 1
        elif cost[i, j] == cost[i, j - 1] + 1:
            j -= 1
        else:
            i -= 1
    return good


def judge(options: argparse.Namespace) -> None:
    """Prints the figures of each probability, and writes the plot."""
    rows = [json.loads(line) for line in options.words.read_text(encoding="utf-8").splitlines()]
    right = np.array([row["right"] for row in rows])
    pairs = [(row["probability"], row["avg_logprob"]) for row in rows]
    found = {
        "mean of the tokens": np.array([word for word, _ in pairs]),
        "as the service gives it": np.array([probability_right(*pair) for pair in pairs]),
        "fitted to other clips": fitted(pairs, right, [row["clip"] for row in rows]),
    }
    print(f"{len(rows)} words, {1 - right.mean():.1%} wrong")
    for name, values in found.items():
        print(f"{name}: area under the curve {area(values, right):.3f}, calibration error {error(values, right):.3f}")
    shown = found["as the service gives it"]
    for noise in sorted({row["noise"] for row in rows}):
        part = np.array([row["noise"] == noise for row in rows])
        print(f"  noise {noise} dB: {1 - right[part].mean():.1%} wrong, area {area(shown[part], right[part]):.3f}")
    doubted = shown < 0.5
    print(f"below 0.5: {doubted.mean():.1%} of words, of which {1 - right[doubted].mean():.1%} are wrong")
    if options.plot:
        options.plot.write_text(plot(found, right), encoding="utf-8")


def fitted(pairs: Sequence[tuple[float, float]], right: NDArray[Any], groups: Sequence[str]) -> Floats:
    """The logistic function's probabilities, each fitted without the word's own clip; prints that of all clips."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    word = np.clip([one for one, _ in pairs], 1 - SUREST, SUREST)
    features = np.stack([np.log(word / (1 - word)), np.clip([one for _, one in pairs], WORST_WINDOW, 0.0)], axis=1)
    model = LogisticRegression(C=100, max_iter=2000)
    folds = GroupKFold(min(FOLDS, len(set(groups))))
    found = cross_val_predict(model, features, right, groups=groups, cv=folds, method="predict_proba")
    model.fit(features, right)
    print(f"fit: bias {model.intercept_[0]:.3f}, word {model.coef_[0][0]:.3f}, window {model.coef_[0][1]:.3f}")
    return np.asarray(found[:, 1])


def area(values: Floats, right: NDArray[Any]) -> float:
    """The area under the receiver's operating curve for wrong words."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right, values))


def bins(values: Floats, right: NDArray[Any]) -> Iterator[tuple[float, float, float]]:
    """For each tenth of the probabilities: the share of words, their mean probability, and how many are right."""
    for low, high in pairwise(np.linspace(0, 1, BINS + 1)):
        inside = (values >= low) & (values < high + (high == 1))
        if inside.any():
            yield float(inside.mean()), float(values[inside].mean()), float(right[inside].mean())


def error(values: Floats, right: NDArray[Any]) -> float:
    """The expected calibration error."""
    return sum(share * abs(said - true) for share, said, true in bins(values, right))


def plot(found: dict[str, Floats], right: NDArray[Any]) -> str:
    """How many words are right of those with a probability, as SVG; the diagonal is perfect."""
    colours = ("#9aa5b1", "#0a7d55")
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 440" font-family="sans-serif" font-size="12">',
        '<rect width="420" height="440" fill="#ffffff"/>',
        '<path d="M50 370V20M50 370H400M50 370L400 20" fill="none" stroke="#cbd2d9"/>',
        '<text x="225" y="400" text-anchor="middle">probability that a word is right</text>',
        '<text x="18" y="195" text-anchor="middle" transform="rotate(-90 18 195)">share that is right</text>',
    ]
    for row, ((name, values), colour) in enumerate(zip(found.items(), colours, strict=False)):
        points = [(50 + 350 * said, 370 - 350 * true) for _, said, true in bins(values, right)]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{colour}"/>' for x, y in points]
        lines.append(f'<text x="60" y="{34 + 16 * row}" fill="{colour}">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Hears or judges."""
    parser = argparse.ArgumentParser(description="Judge the probabilities of words.")
    kinds = parser.add_subparsers(required=True)
    listen = kinds.add_parser("hear")
    listen.add_argument("model", type=Path)
    listen.add_argument("words", type=Path)
    listen.add_argument("--audio", type=Path, action="append")
    listen.add_argument("--babble", type=Path)
    listen.set_defaults(run=hear)
    look = kinds.add_parser("judge")
    look.add_argument("words", type=Path)
    look.add_argument("--plot", type=Path)
    look.set_defaults(run=judge)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
