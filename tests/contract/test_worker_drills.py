"""Drills of both real processes on a real model: hours of audio in flat memory, a clip beside an hour's file, kill -9.
Short here; `DRILLS=long` makes them as long as they should be before a release. Their figures are printed (pytest -s).
"""

import contextlib
import difflib
import http.client
import json
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bad_files import ffmpeg
from support.waiting import repeating, until
from support.whole_service import Service, serving
from support.worker_fixture import CLIPS
from transcribe.jobs.store import Store

pytestmark = [pytest.mark.drill, pytest.mark.model]
LONG = os.environ.get("DRILLS") == "long"
MODEL = "whisper-base" if LONG else "whisper-tiny.en"
KILLS = 30 if LONG else 2  # of each process
MIB = 1 << 20
GROWN_MIB = 200
TRANSCRIBE = "/v1/audio/transcriptions"


def recording(folder: Path, seconds: float, *, pause: float = 0.0) -> Path:
    """A person who reads, again and again, with a pause before each round."""
    once, path = folder / "once.flac", folder / "long.flac"
    inputs = [argument for clip in CLIPS for argument in ("-i", clip)]
    joined = f"concat=n={len(CLIPS)}:v=0:a=1,adelay={int(1000 * pause)}:all=1"
    ffmpeg(*inputs, "-filter_complex", joined, once)
    ffmpeg("-stream_loop", "-1", "-i", once, "-t", str(seconds), path)
    return path


def until_idle(service: Service, patience: float = 180.0) -> None:
    """Waits until the queue is empty, however long that takes, as long as something moves."""
    seen, since = None, time.monotonic()
    while (queue := service.get("/health")["queue"])["audio_seconds"]:
        if queue != seen:
            seen, since = queue, time.monotonic()
        assert time.monotonic() < since + patience, f"nothing moves: {queue}"
        time.sleep(0.2)


def test_hours_of_audio_need_no_more_memory_than_minutes(tmp_path: Path) -> None:
    """Three hours, most of which are pauses: what is decoded, heard and cut is all of it."""
    seconds, mark = (3 * 3600.0, 600.0) if LONG else (900.0, 300.0)
    levels: list[tuple[float, float]] = []
    with serving(tmp_path, batch__max_chunks=8) as service:
        path = recording(tmp_path, seconds, pause=120.0 if LONG else 60.0)
        job = service.upload("/v1/jobs", path.read_bytes()).json["id"]
        statm = Path(f"/proc/{service.processes['worker'].pid}/statm")
        while not (found := service.get(f"/v1/jobs/{job}"))["finished_at"]:
            pages = int(statm.read_text().split()[1])
            levels.append((found["progress"]["audio_seconds_done"], pages * os.sysconf("SC_PAGE_SIZE") / MIB))
            time.sleep(0.1)
    early = max(level for progress, level in levels if progress <= mark)
    grown = max(level for _, level in levels) - early
    print(f"{seconds / 3600:.2f} h: {early:.0f} MiB until minute {mark / 60:.0f}, {grown:.0f} MiB more until the end")
    assert (found["status"], found["progress"]["audio_seconds_done"]) == ("done", seconds)
    assert any(progress > mark for progress, _ in levels), "nothing was measured after the mark"
    assert grown < GROWN_MIB


def test_clips_of_all_lengths_leave_no_memory_behind(tmp_path: Path) -> None:
    """Four clients, an hour: what both processes hold levels off, and is given back when nobody asks for anything."""
    seconds, chance = 3600.0 if LONG else 12.0, random.Random(7)
    clips = []
    for number in range(24):
        once = tmp_path / f"{number}.wav"
        ffmpeg("-stream_loop", "-1", "-i", chance.choice(CLIPS), "-t", f"{chance.uniform(1, 28):.1f}", once)
        clips.append(once.read_bytes())
    with serving(tmp_path, MODEL, batch__max_chunks=8) as service:
        for clip in clips[:8]:  # what is made once, at the first requests, is not growth
            timed(service, clip)
        fresh = resident(service)
        halves: list[dict[str, float]] = []
        times: list[float] = []
        with contextlib.ExitStack() as clients:
            for _ in range(4):
                clients.enter_context(repeating(lambda: times.append(timed(service, chance.choice(clips))), 0.3))
            for _ in range(2):
                most, end = fresh, time.monotonic() + seconds / 2
                while time.monotonic() < end:
                    most = {name: max(held, most[name]) for name, held in resident(service).items()}
                    time.sleep(1.0)
                halves.append(most)
        until_idle(service)
        time.sleep(10.0 if LONG else 0.0)
        idle = resident(service)
    print(f"{seconds:.0f} s, {len(times)} clips: MiB before {fresh}, in each half at most {halves}, at the end {idle}")
    for name, held in halves[1].items():
        assert held < halves[0][name] + GROWN_MIB / 4


def resident(service: Service) -> dict[str, float]:
    """MiB of memory that each process has."""
    return {
        name: int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB
        for name, process in service.processes.items()
    }


def test_a_clip_sent_while_an_hours_file_runs(tmp_path: Path) -> None:
    clips = 9 if LONG else 3
    with serving(tmp_path, MODEL, batch__max_chunks=8) as service:
        window = recording(tmp_path, 30.0).read_bytes()
        chunk = min(timed(service, window) for _ in range(2))
        path = recording(tmp_path, 3600.0 if LONG else 900.0)
        alone = statistics.median(timed(service) for _ in range(clips))
        long = service.upload("/v1/jobs", path.read_bytes()).json["id"]
        until(lambda: done(service, long) > 0, 120)
        with health_times(service) as health:
            beside = sorted(timed(service) for _ in range(clips))
        status = service.get(f"/v1/jobs/{long}")["status"]
        service.request("POST", f"/v1/jobs/{long}/cancel")
    middle, slow = statistics.median(beside), statistics.quantiles(health, n=100)[98]
    print(
        f"clip alone {alone:.2f} s, beside a long file {middle:.2f} s (worst {beside[-1]:.2f} s), a chunk {chunk:.2f} s"
        f", /health median {1000 * statistics.median(health):.0f} ms, p99 {1000 * slow:.0f} ms of {len(health)}"
    )
    assert status == "running", "the long file ended too early to tell anything"
    if LONG:  # a figure, which other work on the machine would spoil
        assert middle <= 3 * alone + chunk
        assert statistics.median(health) < 0.05


def timed(service: Service, content: bytes = b"") -> float:
    """How long a client waits for a recording, or else for a clip of three seconds."""
    began = time.monotonic()
    assert service.upload(TRANSCRIBE, content or CLIPS[0].read_bytes()).status == 200
    return time.monotonic() - began


def done(service: Service, job: str) -> float:
    """The seconds of the job's audio that are done."""
    return float(service.get(f"/v1/jobs/{job}")["progress"]["audio_seconds_done"])


@contextlib.contextmanager
def health_times(service: Service) -> Iterator[list[float]]:
    """The seconds that /health takes, requested every 50 ms during the block."""
    times: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        assert service.request("GET", "/health").status == 200
        times.append(time.monotonic() - began)

    with repeating(ask, 0.05):
        yield times


def test_kill_9_of_both_processes_under_load(tmp_path: Path) -> None:
    """Every job that was answered with 202 ends once: with its whole text, or, when three workers died with it, with
    that reason."""
    accepted: list[tuple[str, int]] = []
    with serving(tmp_path, batch__max_chunks=4, limits__queue_jobs=5000, limits__key_jobs=5000) as service:
        said = [service.upload(TRANSCRIBE, clip.read_bytes()).json["text"] for clip in CLIPS]
        for _ in range(KILLS):
            accepted += killed_round(service)
        service.wait_ready()
        until_idle(service)
        store = Store(service.config.parent / "results" / "jobs.sqlite3")
        ends = Counter(ending(store, job, said[clip]) for job, clip in accepted)
        tries = Counter(found.attempts for job, _ in accepted if (found := store.get(job)))
        store.close()
    lines = [json.loads(line) for line in service.log("worker").read_text().splitlines()]
    finished = Counter(line["job"] for line in lines if line["event"] == "job_done")
    print(f"{2 * KILLS} kills: {len(accepted)} jobs accepted, {dict(ends)}, by tries {dict(tries)}")
    assert len(accepted) >= KILLS
    assert set(ends) <= {"done", "worker_died"}
    assert ends["done"] > len(accepted) / 2
    assert max(tries) <= 3
    assert max(finished.values()) == 1, "a job was finished twice"


def killed_round(service: Service) -> list[tuple[str, int]]:
    """Sends clips as jobs until the API is killed, waits for the worker's end too, and starts both again. Returns the
    jobs that were accepted, each with its clip's number."""
    accepted = []
    for name, longest in (("api", 3.0), ("worker", 12.0)):  # the worker needs seconds to load: kill it in each phase
        threading.Timer(random.uniform(0.0, longest), service.processes[name].kill).start()
    with contextlib.suppress(OSError, http.client.HTTPException):
        while service.processes["api"].poll() is None:
            clip = random.randrange(len(CLIPS))
            reply = service.upload("/v1/jobs", CLIPS[clip].read_bytes())
            accepted += [(reply.json["id"], clip)] if reply.status == 202 else []
            time.sleep(0.3)
    for name in ("api", "worker"):
        assert service.processes.pop(name).wait(60) == -signal.SIGKILL
    for name in ("api", "worker"):
        service.start(name)
    until(lambda: listens(service), 60)
    return accepted


def listens(service: Service) -> bool:
    """The API answers."""
    try:
        return service.request("GET", "/health").status == 200
    except (OSError, http.client.HTTPException):
        return False


def ending(store: Store, job_id: str, said: str) -> str:
    """How a job ended: `done` with the text that its clip has, or why not."""
    job = store.get(job_id)
    if job is None or job.status != "done":
        return "lost" if job is None else job.error.code or "failed" if job.error else job.status
    segments = store.segments(job_id)
    text = "".join(segment.text for segment in segments)
    whole = [segment.id for segment in segments] == list(range(len(segments)))
    alike = difflib.SequenceMatcher(None, said.split(), text.split()).ratio()
    return "done" if whole and alike > 0.6 else f"wrong text {text!r}"
