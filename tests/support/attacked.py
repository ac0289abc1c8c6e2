"""A service under attack: API and worker as processes that are started again when they end, as systemd does; clients
with a ledger of what was accepted; and the faults of a machine."""

import contextlib
import http.client
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from transcribe.audio.ffmpeg import PROGRAMS
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store

from support.api_server_fixture import HttpRequests, free_port, settings
from support.waiting import until
from support.worker_fixture import CLIPS, wav

TESTS = Path(__file__).resolve().parents[1]
COMMANDS = {
    "api": [TESTS.parent / "service/api_server.py"],
    "worker": [TESTS / "support/worker_process.py"],
}
CLOCK = """\
import pathlib, time
real, file = time.time, pathlib.Path({path!r})
time.time = lambda: real() + float(file.read_text() or 0)
"""  # of a process, moved by what is in a file
GOOD = [*(clip.read_bytes() for clip in CLIPS), wav(2.0)]
BAD = [b"no recording at all" * 99, CLIPS[0].read_bytes()[:40]]


@dataclass
class Attacked(HttpRequests):
    """The service below `root`; `programs` is where it finds its decoders, `clock` the file that moves its clock."""

    headers: ClassVar = {"Cache-Control": "no-cache"}  # the same recording again is another job
    root: Path
    port: int
    programs: Path
    clock: Path
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    accepted: dict[str, bool] = field(default_factory=dict)  # job: whether its recording is good
    answers: Counter[int] = field(default_factory=Counter)

    def start(self, name: str) -> None:
        """Starts `api` or `worker`."""
        path = os.pathsep.join(str(TESTS.parent / folder) for folder in ("tests", "service", "tools", "salt"))
        path = f"{self.clock.parent}{os.pathsep}{path}"
        config = str(self.root / "transcribe.json")
        environment = {**os.environ, "PATH": str(self.programs), "PYTHONPATH": path, "TRANSCRIBE_CONFIG": config}
        with (self.programs.parent / f"{name}.log").open("ab") as log:
            command = [sys.executable, *map(str, COMMANDS[name]), *([config] if name == "worker" else [])]
            self.processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.starts[name] += 1

    def restart_what_ended(self) -> None:
        """What systemd does every second."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self.start(name)

    def ready(self) -> bool:
        """Whether both serve."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/ready").status == 200
        return False

    def send(self) -> None:
        """One job of a client, mostly with a good recording; what is answered with 202 is in the ledger."""
        good = random.random() < 0.9
        try:
            reply = self.upload("/v1/jobs", random.choice(GOOD if good else BAD))
        except (OSError, http.client.HTTPException):
            self.answers[0] += 1
            time.sleep(0.2)
            return
        self.answers[reply.status] += 1
        if reply.status == 202:
            self.accepted[reply.json["id"]] = good
        else:
            time.sleep(0.2)

    def endings(self) -> Counter[str]:
        """How what was accepted ended: done, refused (for what is wrong with the recording), or what must not be."""
        found: Counter[str] = Counter()
        store = Store(self.root / "results/jobs.sqlite3")
        for job_id, good in self.accepted.items():
            job = store.get(job_id)
            ids = [segment.id for segment in store.segments(job_id)]
            if job is None:
                found["lost"] += 1
            elif job.status == "done" and good:
                found["done" if ids == list(range(len(ids))) and ids else "wrong text"] += 1
            elif job.status == "failed" and not good and job.error and job.error.status == 400:
                found["refused"] += 1
            else:
                found[f"{job.status} ({job.error.code if job.error else 'no error'})"] += 1
        store.close()
        return found


@contextmanager
def attacked(folder: Path, root: Path, **changes: Any) -> Iterator[Attacked]:
    """A service whose data are below `root`, on a disk that may be small, and the rest below `folder`."""
    port = free_port()
    config = settings(root, {"port": port, "limits.queue_jobs": 5000, "limits.key_jobs": 5000, **changes})
    (root / "transcribe.json").write_text(json.dumps(config))
    programs, clock = folder / "bin", folder / "clock"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(str(shutil.which(name)))
    clock.write_text("0")
    (folder / "sitecustomize.py").write_text(CLOCK.format(path=str(clock)))
    found = Attacked(root, port, programs, clock)
    over = threading.Event()

    def supervise() -> None:
        while not over.wait(0.5):
            found.restart_what_ended()

    supervisor = threading.Thread(target=supervise)
    try:
        for name in COMMANDS:
            found.start(name)
        supervisor.start()
        until(found.ready, 180)
        yield found
    finally:
        over.set()
        supervisor.join()
        for process in found.processes.values():
            process.kill()
            process.wait()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MB and 2,000 files; for root only."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=2000", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def kill_both(service: Attacked, seconds: float) -> None:
    """kill -9 of both processes at random moments; a job is given three workers, so no more than two."""
    for _ in range(2):
        time.sleep(random.uniform(0, seconds / 2))
        for name in ("api", "worker"):
            service.processes[name].kill()
        until(service.ready, 120)


def fill_disk(service: Attacked, seconds: float) -> None:
    """No byte is left."""
    filler = service.root / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    time.sleep(seconds)
    filler.unlink()


def take_inodes(service: Attacked, seconds: float) -> None:
    """No file can be made."""
    folder = service.root / "files"
    folder.mkdir()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (folder / str(number)).touch()
    time.sleep(seconds)
    shutil.rmtree(folder)


def take_memory(service: Attacked, seconds: float) -> None:
    """Neither process gets any more."""
    before = {}
    for name, process in service.processes.items():
        size = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.prlimit(process.pid, resource.RLIMIT_AS)[1]
        before[name] = process, resource.prlimit(process.pid, resource.RLIMIT_AS, (size, hard))
    time.sleep(seconds)
    for process, limits in before.values():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(process.pid, resource.RLIMIT_AS, limits)


def move_clock(service: Attacked, seconds: float) -> None:
    """Two hours on, two hours back, and right again."""
    for offset in ("7200", "-7200", "0"):
        service.clock.write_text(offset)
        time.sleep(seconds / 2)


def lock_store(service: Attacked, seconds: float) -> None:
    """Somebody looks at the store with a tool that locks it."""
    connection = sqlite3.connect(service.root / "results/jobs.sqlite3", isolation_level=None, timeout=60)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    connection.execute("ROLLBACK")
    connection.close()


def remove_ffmpeg(service: Attacked, seconds: float) -> None:
    """It is being upgraded."""
    for name in ("ffmpeg", "ffprobe"):
        (service.programs / name).rename(service.programs / f"{name}.away")
    time.sleep(seconds)
    for name in ("ffmpeg", "ffprobe"):
        (service.programs / f"{name}.away").rename(service.programs / name)


FAULTS: dict[str, Callable[[Attacked, float], None]] = {
    "both processes killed": kill_both,
    "disk full": fill_disk,
    "inodes gone": take_inodes,
    "memory gone": take_memory,
    "clock jumps": move_clock,
    "store locked": lock_store,
    "ffmpeg gone": remove_ffmpeg,
}
