"""Drills of the worker: hours of audio in flat memory, a clip beside an hour's file, thousands of broken files. Short
here; `DRILLS=long` makes them as long as they should be before a release. Their figures are printed (pytest -s)."""

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from transcribe.audio import AudioError, decode
from transcribe.vad import Vad
from workshop import CLIPS, FakeEngine, Shop, program, shop, with_model, working

pytestmark = pytest.mark.drill
LONG = os.environ.get("DRILLS") == "long"
MIB = 1 << 20


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-y", "-v", "error", *map(str, arguments)], check=True)


def recording(folder: Path, seconds: float) -> Path:
    """A person who reads, again and again."""
    once, path = folder / "once.flac", folder / "long.flac"
    inputs = [argument for clip in CLIPS for argument in ("-i", clip)]
    ffmpeg(*inputs, "-filter_complex", f"concat=n={len(CLIPS)}:v=0:a=1", once)
    ffmpeg("-stream_loop", "-1", "-i", once, "-t", str(seconds), path)
    return path


def test_hours_of_audio_need_no_more_memory_than_minutes(tmp_path: Path) -> None:
    """Real decoder, detector, cutter and store; only the engine, which never sees more than a chunk, is not."""
    hours, mark = (3.0, 600.0) if LONG else (0.5, 300.0)
    place = shop(tmp_path, batch__max_chunks=16)
    path = recording(tmp_path, hours * 3600)
    levels: list[tuple[float, float]] = []
    with working(place, FakeEngine(places=16), vad=Vad.load()) as running:
        job = place.submit(path, estimate=hours * 3600)
        while not place.job(job).over:
            levels.append((place.job(job).progress, running.reporter.meter.figures()["memory_bytes"]))
            time.sleep(0.05)
    found = place.job(job)
    place.store.close()
    early = max(level for progress, level in levels if progress <= mark)
    grown = max(level for _, level in levels) - early
    print(f"{hours} h: {early / MIB:.0f} MiB until minute {mark / 60:.0f}, {grown / MIB:.0f} MiB more until the end")
    assert (found.status, found.duration) == ("done", hours * 3600)
    assert grown < 100 * MIB


@pytest.mark.model
def test_a_clip_sent_while_an_hours_file_runs(tmp_path: Path) -> None:
    place = with_model(tmp_path, "whisper-base" if LONG else "whisper-tiny.en", batch__max_chunks=8)
    path = recording(tmp_path, 3600.0 if LONG else 900.0)
    process = program(place, "--worker")
    place.until(lambda: (place.store.worker() or {}).get("state") == "ready", seconds=300)
    clips = 9 if LONG else 3
    alone = min(timed(place, CLIPS[0]) for _ in range(clips))
    long = place.submit(path, estimate=900.0)
    place.until(lambda: place.store.segments(long), seconds=120)
    began, before = time.monotonic(), place.job(long).progress
    beside = sorted(timed(place, CLIPS[0]) for _ in range(clips))
    chunk = 30.0 * (time.monotonic() - began) / max(place.job(long).progress - before, 30.0)
    running = not place.job(long).over
    place.store.cancel(long)
    process.terminate()
    process.communicate()
    place.store.close()
    median = beside[len(beside) // 2]
    print(
        f"clip alone {alone:.2f} s, beside a long file {median:.2f} s (worst {beside[-1]:.2f} s), a chunk {chunk:.2f} s"
    )
    assert running, "the long file ended too early to tell anything"
    assert median <= 3 * alone + chunk


def timed(place: Shop, clip: Path) -> float:
    """How long a client waits for the clip."""
    began = time.monotonic()
    job = place.submit(clip, estimate=3.0)
    place.until(lambda: place.job(job).over, seconds=120)
    assert place.job(job).status == "done"
    return time.monotonic() - began


def test_mutated_recordings_are_heard_or_refused_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(2026)
    sources = [CLIPS[2].read_bytes()]
    for name in ("a.wav", "a.mp3", "a.m4a", "a.ogg", "a.opus", "a.webm", "a.mp4", "a.aac"):
        ffmpeg("-i", CLIPS[2], *(["-c:a", "aac"] if name == "a.mp4" else []), tmp_path / name)
        sources.append((tmp_path / name).read_bytes())
    place = shop(tmp_path)
    ends: Counter[str] = Counter()
    slowest = 0.0
    for number in range(2000 if LONG else 54):
        path = tmp_path / "upload"
        path.write_bytes(mutated(sources[number % len(sources)], chance))
        began = time.monotonic()
        ends[outcome(path, place)] += 1
        slowest = max(slowest, time.monotonic() - began)
    place.store.close()
    print(f"mutated: {dict(ends)}, the slowest {slowest:.1f} s")
    assert not any(end.startswith("wrong") for end in ends)
    assert slowest < 60


def outcome(path: Path, place: Shop) -> str:
    """`heard`, or the code of the refusal; anything else escapes and fails the test."""
    try:
        for _ in decode(path, place.config.limits):
            pass
    except AudioError as error:
        return error.code if 400 <= error.status < 500 and error.message else f"wrong refusal: {error}"
    return "heard"


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, mostly in the headers; sometimes cut off."""
    found = bytearray(content)
    reach = chance.choice((64, 4096, len(found)))
    for _ in range(chance.choice((1, 10, 200))):
        found[chance.randrange(min(len(found), reach))] = chance.randrange(256)
    return bytes(found[: chance.choice((len(found), len(found), len(found) // 2, 100))])
