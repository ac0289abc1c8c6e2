"""The job store under threads, two processes and kill -9."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from transcribe.jobs.models import NewJob
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions, Segment

pytestmark = [pytest.mark.slow, pytest.mark.attack]

SERVICE = Path(__file__).resolve().parents[3] / "service"


def new() -> NewJob:
    return NewJob(key_id="", options=DecodeOptions(language=None))


def segment(number: int) -> Segment:
    return Segment(number, 0, number, number + 1, " hej", (), 0.0, 0.0, 1.0, 0.0)


def test_threads_finish_every_job_exactly_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    ids = [store.create(new()).id for _ in range(24)]
    ended: list[str] = []

    def work() -> None:
        while job := store.claim():
            store.add_segments(job.id, job.attempts, [segment(0)], progress=1.0)
            if store.finish(job.id, job.attempts, language="sv", coverage={}):
                ended.append(job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == sorted(ids)


WORKER = """
import sys
from pathlib import Path
from transcribe.jobs.store import Store
from transcribe.types import Segment
store = Store(Path(sys.argv[1]))
store.requeue_running(max_attempts=10**6)
print("up", flush=True)
while True:
    job = store.claim(max_attempts=10**6)
    if job is None:
        continue
    for number in range(6):
        piece = Segment(number, 0, number, number + 1, f" {job.id}", (), 0.0, 0.0, 1.0, 0.0)
        store.add_segments(job.id, job.attempts, [piece], progress=number + 1)
    store.finish(job.id, job.attempts, language="sv", coverage={})
    print(job.id, flush=True)
"""
CREATOR = """
import sys
from pathlib import Path
from transcribe.jobs.models import NewJob
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions
store = Store(Path(sys.argv[1]))
print("up", flush=True)
while True:
    print(store.create(NewJob(key_id="", options=DecodeOptions(language=None))).id, flush=True)
"""


def killed_at_random(code: str, path: Path, seconds: float) -> list[str]:
    """Runs the program for so long, kills it with SIGKILL, and returns the ids that it printed completely."""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SERVICE)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split("\n")
    return [line for line in lines if len(line) == 32]


def test_kill_9_of_either_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    chance = random.Random(3)
    store = Store(path)
    accepted: list[str] = []
    finished: list[str] = []
    kills = 0
    while (
        kills < 10 or len(accepted) < 6 or len(finished) < 2
    ):  # on a busy machine a process may do nothing in its time
        accepted += killed_at_random(CREATOR, path, chance.uniform(0.02, 0.1))
        finished += killed_at_random(WORKER, path, chance.uniform(0.05, 0.4))
        kills += 2
        assert kills < 100, "the processes get nothing done"
    assert len(finished) == len(set(finished))
    for job_id in accepted:
        job = store.get(job_id)
        assert job is not None, "an accepted job is lost"
        if job.status == "done":
            assert [piece.text for piece in store.segments(job_id)] == [f" {job_id}"] * 6
        else:
            assert job_id not in finished
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
