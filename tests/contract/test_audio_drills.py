"""Drill: recordings that cannot be used, made by hand and by chance, sent to the real server with the real decoder
behind it. Short here; `DRILLS=long` sends thousands. The figures are printed (pytest -s)."""

import contextlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import bad_files
from support.api_process import ApiProcess, started
from support.api_server_fixture import free_port, settings
from support.bad_files import CLIP, LONGEST, ffmpeg
from support.waiting import repeating
from support.worker_fixture import FakeEngine, running_worker, service_fixture
from transcribe.audio.vad import Vad

pytestmark = [pytest.mark.drill, pytest.mark.attack]
LONG = os.environ.get("DRILLS") == "long"
MUTATED = 2000 if LONG else 54
DECODER_MIB = 512
SLOWEST = 60.0  # seconds that an answer may take: a hang takes longer


@contextmanager
def server(root: Path) -> Iterator[ApiProcess]:
    """The API as a process, and the real worker here, so that its decoders are our children; only the engine is not
    real."""
    changes = {"port": free_port(), "limits__audio_seconds": LONGEST}
    service = service_fixture(root, **changes)
    with (
        running_worker(service, FakeEngine(capacity=16), vad=Vad.load()) as running,
        started(root, settings(root, changes)) as process,
    ):
        running.reporter.set_state("ready")
        running.reporter.start()
        while process.request("GET", "/ready").status != 200:
            time.sleep(0.05)
        try:
            yield process
        finally:
            running.reporter.close()
    service.store.close()


@contextmanager
def watched() -> Iterator[list[int]]:
    """The resident peaks in MiB of the decoders that are our children, as far as looking every few milliseconds tells.
    Not `RUSAGE_CHILDREN`: until its exec a child counts with our own memory."""
    peaks = [0]

    def look() -> None:
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                peaks.extend(map(decoder_mib, (task / "children").read_text().split()))

    with repeating(look, 0.005):
        yield peaks


def decoder_mib(pid: str) -> int:
    """The most that it has had so far; 0 if it is no decoder. Raises OSError when it has just ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M) if status.startswith("Name:\tffmpeg") else None
    return int(found[1]) // 1024 if found else 0


def refusal(process: ApiProcess, content: bytes, seconds: list[float]) -> str:
    """The error code, or `transcribed` for a 200. Fails for anything else."""
    began = time.monotonic()
    reply = process.upload("/v1/audio/transcriptions", content)
    seconds.append(time.monotonic() - began)
    if reply.status == 200:
        return "transcribed"
    assert 400 <= reply.status < 500, reply.body
    assert reply.json["error"]["message"]
    return str(reply.code)


def test_bad_recordings_made_by_hand_are_refused_with_a_reason(tmp_path: Path) -> None:
    ffmpeg("-i", CLIP, tmp_path / "clip.wav")
    files = bad_files.all_of_them(tmp_path, tmp_path / "clip.wav")
    seconds: list[float] = []
    with server(tmp_path / "root") as process, watched() as peaks:
        found = {name: refusal(process, content, seconds) for name, (content, _) in files.items()}
    ends = dict(Counter(found.values()))
    print(f"{len(files)} made by hand: {ends}, the slowest {max(seconds):.1f} s, a decoder {max(peaks)} MiB at most")
    expected = {name: code or found[name] for name, (_, code) in files.items()}
    assert len(files) >= 60
    assert found == {**expected, "empty": "empty_file"}  # that one never reaches the decoder
    assert "transcribed" not in found.values()
    assert 0 < max(peaks) <= DECODER_MIB
    assert max(seconds) < SLOWEST


def test_mutated_recordings_are_transcribed_or_refused_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(2026)
    sources = [CLIP.read_bytes()]
    for name in ("a.wav", "a.mp3", "a.m4a", "a.ogg", "a.opus", "a.webm", "a.mp4", "a.aac"):
        ffmpeg("-i", CLIP, *(["-c:a", "aac"] if name == "a.mp4" else []), tmp_path / name)
        sources.append((tmp_path / name).read_bytes())
    files = [mutated(sources[number % len(sources)], chance) for number in range(MUTATED)]
    seconds: list[float] = []
    with server(tmp_path / "root") as process, watched() as peaks, ThreadPoolExecutor(4) as clients:
        ends = Counter(clients.map(lambda content: refusal(process, content, seconds), files))
        assert process.request("GET", "/ready").status == 200
    print(f"{MUTATED} mutated: {dict(ends)}, the slowest {max(seconds):.1f} s, a decoder {max(peaks)} MiB at most")
    assert ends["transcribed"] < MUTATED
    assert 0 < max(peaks) <= DECODER_MIB
    assert max(seconds) < SLOWEST


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, mostly in the headers; sometimes cut off."""
    found = bytearray(content)
    reach = chance.choice((64, 4096, len(found)))
    for _ in range(chance.choice((1, 10, 200))):
        found[chance.randrange(min(len(found), reach))] = chance.randrange(256)
    return bytes(found[: chance.choice((len(found), len(found), len(found) // 2, 100))])
