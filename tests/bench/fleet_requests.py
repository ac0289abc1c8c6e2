"""Counts what a fleet asks of AWS: the real feeder and the real submission, against moto over HTTP."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

sys.path[:0] = [
    str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"), (2, "service"))
]

from support import fleets  # noqa: E402 - found by the line above
from support.fleets import FleetCloud, name_of  # noqa: E402
from support.waiting import until  # noqa: E402
from transcribe.fleet import submission  # noqa: E402
from transcribe.fleet.documents import Request  # noqa: E402
from transcribe.fleet.layout import job_id  # noqa: E402
from transcribe.types import DecodeOptions  # noqa: E402

BYTES_A_SECOND = 8000  # of a recording of 64 kbit/s
JOBS = 4  # that are counted
TIMED = 25  # jobs
LATER = 0.06  # seconds by which answers are delayed
IDLE_SECONDS = 15.0
HOLD = "SQS ChangeMessageVisibility"
CHECKPOINT = "S3 write checkpoint"
ONCE = ("SQS GetQueueUrl", "SQS GetQueueAttributes", "CloudWatch PutMetricData")  # at the start and once a minute

Counts = dict[str, float]


@dataclass(frozen=True)
class Requests:
    """By the service, what it is, and for S3 the part of the bucket."""

    submission: Counts  # of one job, by who submits it
    job: Counts  # of one job, by its machine, without the rounds in which it is held
    round: Counts  # each time that a job is held for longer
    idle: Counts  # in a minute of a machine that waits for work
    in_turn: float  # of those of a job, how many a busy feeder makes one after the other, while nothing else goes on


@dataclass
class Counting:
    """The layer before moto."""

    inner: WSGIApplication
    feeders: bool = False  # whether what feeders ask is counted, or what submitters do
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.feeders == (" transcribe-feeder" in environ.get("HTTP_USER_AGENT", "")):
            self.seen[_name(environ)] += 1
        return self.inner(environ, start_response)

    def taken(self) -> Counter[str]:
        """What has come since the last call."""
        seen, self.seen = self.seen, Counter()
        return seen


def _name(environ: WSGIEnvironment) -> str:
    if target := environ.get("HTTP_X_AMZ_TARGET", ""):
        return f"{'SQS' if 'SQS' in target else 'CloudWatch'} {name_of(environ)}"
    part = [*environ["PATH_INFO"].strip("/").split("/"), "", ""][2]
    return f"S3 {'read' if environ['REQUEST_METHOD'] in ('GET', 'HEAD') else 'write'} {part}"


def count(minutes: float) -> Requests:
    """What is asked for recordings of so many minutes, which are really sent."""
    with tempfile.TemporaryDirectory() as folder, fleets.fleet_cloud() as cloud:
        counting = Counting(cloud.watched.inner)
        cloud.watched.inner = counting
        file = Path(folder) / "recording"
        file.write_bytes(fleets.audio("counted").ljust(int(minutes * 60 * BYTES_A_SECOND), b"\0"))
        jobs = [_submit(cloud, file, minutes, number) for number in range(JOBS)]
        submitted = counting.taken()
        counting.feeders = True
        with fleets.machine(Path(folder) / "a", cloud, fleet__hold_seconds=7200, fleet__wait_minutes=0) as machine:
            machine.start()
            cloud.wait_over(jobs, 120)
            cloud.assert_empty()
            done = counting.taken()
            time.sleep(IDLE_SECONDS)
            idle = counting.taken()
            machine.stop()
        in_turn = _in_turn(Path(folder), cloud)
        rounds = _rounds(Path(folder) / "b", cloud, counting, _submit(cloud, file, minutes, JOBS))
    held = done[HOLD]
    of_jobs = {name: (number - held * rounds.get(name, 0)) / len(jobs) for name, number in done.items()}
    return Requests(
        submission={name: number / JOBS for name, number in submitted.items()},
        job={name: number for name, number in of_jobs.items() if name not in (*ONCE, HOLD) and number > 0},
        round=rounds,
        idle={name: number * 60 / IDLE_SECONDS for name, number in idle.items() if name not in ONCE},
        in_turn=in_turn,
    )


def _submit(cloud: FleetCloud, file: Path, minutes: float, number: int) -> str:
    job = job_id("bench", str(number))
    options = DecodeOptions(language="sv")
    request = Request(job=job, owner="bench", options=options, bytes=file.stat().st_size, seconds=minutes * 60)
    submission.submit(cloud.bucket, cloud.queues, cloud.layout, request, lambda key: cloud.bucket.upload(key, file))
    return job


def _in_turn(folder: Path, cloud: FleetCloud) -> float:
    """By how much longer a job takes if each answer takes longer, a worker needs no time and many short jobs wait."""
    times = [_seconds(folder / f"later-{later}", cloud, later) for later in (0.0, LATER)]
    return (times[1] - times[0]) / LATER


def _seconds(root: Path, cloud: FleetCloud, later: float) -> float:
    """For one job, while each answer takes so much longer than moto's own."""
    cloud.watched.meets = lambda _name, when: time.sleep(later) if when == "before" else None
    before = len(cloud.watched.outcomes)
    for number in range(TIMED):
        cloud.submit(fleets.audio(f"{later} {number}"))
    with fleets.machine(root, cloud, fleet__hold_seconds=7200, fleet__wait_minutes=0) as machine:
        machine.start()
        until(lambda: len(cloud.watched.outcomes) > before, 60)
        began = time.monotonic()
        until(lambda: len(cloud.watched.outcomes) == before + TIMED, 300)
        seconds = (time.monotonic() - began) / (TIMED - 1)
        machine.stop()
    cloud.watched.meets = lambda _name, _when: None
    return seconds


def _rounds(root: Path, cloud: FleetCloud, counting: Counting, job: str) -> Counts:
    """What is asked each time that a job is held. Its text is stored each time, if it has become longer by then."""
    with fleets.machine(root, cloud, fleet__hold_seconds=3, fleet__wait_minutes=0, delay=5.0) as machine:
        machine.start()
        until(lambda: counting.seen[HOLD], 60)
        counting.taken()
        until(lambda: counting.seen[HOLD] >= 6, 60)
        seen = counting.taken()
        cloud.wait_over([job], 60)
        stored = counting.taken()[CHECKPOINT] + seen[CHECKPOINT]
        machine.stop()
    assert stored, "the text of a job that takes long is stored"
    of_states = {name: float(round(seen[name] / seen[HOLD])) for name in ("S3 read state", "S3 write state")}
    return {HOLD: 1.0, CHECKPOINT: 1.0, **of_states}


if __name__ == "__main__":
    print(count(float(sys.argv[1]) if sys.argv[1:] else 60.0))
