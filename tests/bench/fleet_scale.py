#!/usr/bin/env python3
"""A fleet by simulation: an archive in a day, its machines, its cost, and which limit of AWS comes first.

What a job asks of AWS is counted from the real feeder. The speeds are those of docs/performance.md; --speed and --price
take others. Prints a table.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"), (2, "service"))
]

from baker.aws.growth import WARMUP_SECONDS  # noqa: E402 - found by the line above
from rich.console import Console  # noqa: E402

from bench.fleet_requests import Counts, Requests, count  # noqa: E402

DAY = 24 * 60  # minutes
BOOT = 5  # minutes until a machine takes jobs
WAIT = 10  # minutes, as [fleet] wait_minutes
IDLE = 15  # minutes, as [fleet] idle_minutes
HOLD_SECONDS = 120  # as fleet.hold_seconds, in which a job is held three times
LOOK = 5.0  # seconds until a job that was taken is held for the first time
ANSWER = 0.02  # seconds until AWS answers, assumed; the feeder's own time is left out
SEEN = 3  # minutes until target tracking acts
# What AWS documents: for each partition of a bucket, S3 splits them by itself; for each queue; for each account.
FEEDER = "the feeder"
LIMITS = {"S3 writes/s": 3500.0, "S3 reads/s": 5500.0, "SQS in flight": 120_000.0, "PutMetricData/s": 500.0}
DOLLARS = {"S3 write": 5e-6, "S3 read": 0.4e-6, "SQS": 0.4e-6}  # a request, list prices of us-east-1


@dataclass(frozen=True)
class Kind:
    """A machine: seconds of audio that it does in one second, what it costs an hour, its rows in a batch."""

    name: str
    speed: float
    price: float
    rows: int


KINDS = (
    Kind("2 cores, whisper-base: measured over HTTP, short clips", 48.0, 0.1026, 16),
    Kind("T4 (g4dn.xlarge), whisper-small: counted, not measured", 1330.0, 0.558, 64),
    Kind("H200, whisper-base: measured over HTTP, an hour's file", 1500.0, 0.0, 64),
)


@dataclass(frozen=True)
class Run:
    """What became of an archive."""

    kind: Kind  # with the speed that it came to
    minutes: float  # of a recording
    machines: int
    done_hours: float
    machine_hours: float
    dollars: float
    dollars_an_audio_hour: float
    rates: dict[str, float]  # at the busiest minute, by the limit
    first: str  # what limits a machine, or the limit that is nearest


def growth(kind: Kind, seconds: float, most: int) -> Iterator[tuple[int, float]]:
    """For each minute, how many machines there are and how much audio is left, until the last one has ended itself:
    from zero by an alarm, then by what waits over the speed, as the fleet's own policies do."""
    began: list[int] = []
    left, over, done = seconds, 0, 0
    minute = 0
    while done < IDLE:
        minute += 1
        serving = sum(1 for start in began if minute - start >= BOOT)
        left = max(0.0, left - serving * kind.speed * 60)
        done = done + 1 if left == 0 else 0
        warm = sum(1 for start in began if (minute - start) * 60 >= WARMUP_SECONDS)
        late = left / (serving * kind.speed) / (WAIT * 60) if serving else 0.0
        over = over + 1 if late > 1 else 0
        wanted = max(min(1, most) if minute >= 2 else 0, math.ceil(warm * late) if over >= SEEN else 0)
        began += [minute] * (min(wanted, most) - len(began))
        yield len(began), left


def simulate(kind: Kind, hours: float, minutes: float, asked: Requests) -> Run:
    """The smallest fleet that is done within a day."""
    fed = minutes * 60 / (asked.in_turn * ANSWER)
    kind = replace(kind, speed=min(kind.speed, fed))
    most = math.ceil(hours / kind.speed / 24)
    while True:
        steps = list(growth(kind, hours * 3600, most))
        done = next(number for number, (_, left) in enumerate(steps, 1) if left == 0)
        if done <= DAY:
            break
        most += max(1, most // 200)
    machine_hours = sum(machines for machines, _ in steps) / 60
    jobs = hours * 60 / minutes
    each = per_job(kind, minutes, asked)
    dollars = machine_hours * kind.price + sum(
        jobs * number * price for name, number in each.items() for at, price in DOLLARS.items() if name.startswith(at)
    )
    rates = busiest(kind, most, minutes, each)
    nearest = max(LIMITS, key=lambda name: rates[name] / LIMITS[name])
    first = FEEDER if kind.speed == fed else f"{nearest}: {rates[nearest] / LIMITS[nearest]:.1%}"
    return Run(kind, minutes, most, done / 60, machine_hours, dollars, dollars / hours, rates, first)


def per_job(kind: Kind, minutes: float, asked: Requests) -> Counts:
    """What a job asks in all, on a machine that is busy: it works on as many at once as its batch has rows, and one."""
    stays = (kind.rows + 1) * minutes * 60 / kind.speed
    rounds = min(1.0, stays / LOOK) + stays / (HOLD_SECONDS / 3)
    names = {*asked.job, *asked.round}
    return {name: asked.job.get(name, 0.0) + rounds * asked.round.get(name, 0.0) for name in names}


def busiest(kind: Kind, machines: int, minutes: float, each: Counts) -> dict[str, float]:
    """What is asked in a second while all machines work, by the limit, as if S3 had not split the bucket."""
    jobs = machines * kind.speed / (minutes * 60)
    of = {at: jobs * sum(number for name, number in each.items() if name.startswith(at)) for at in DOLLARS}
    return {
        "S3 writes/s": of["S3 write"],
        "S3 reads/s": of["S3 read"],
        "SQS in flight": machines * (kind.rows + 1.0),
        "PutMetricData/s": machines / 60,
        "SQS/s": of["SQS"],
    }


def table(runs: list[Run]) -> str:
    """In Markdown."""
    head = ["machine", "recordings of", "speed", "machines", "done after", "machine hours", "dollars"]
    head += ["dollars an audio hour", "S3 writes/s", "S3 reads/s", "SQS requests/s", "SQS in flight", "first limit"]
    lines = [head, ["---"] * len(head)]
    for run in runs:
        cost = [f"{run.dollars:,.0f}", f"{run.dollars_an_audio_hour:.4f}"] if run.kind.price else ["", ""]
        rates = [f"{run.rates[name]:,.0f}" for name in ("S3 writes/s", "S3 reads/s", "SQS/s", "SQS in flight")]
        size = [f"{run.machines:,}", f"{run.done_hours:.1f} h", f"{run.machine_hours:,.0f}"]
        what = [run.kind.name, f"{run.minutes:g} min", f"{run.kind.speed:,.0f} ×"]
        lines.append([*what, *size, *cost, *rates, run.first])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=100_000.0, help="of audio")
    parser.add_argument("--minutes", type=float, nargs="+", default=[60.0, 1.0], help="that a recording is long")
    parser.add_argument("--speed", type=float, help="seconds of audio in a second, of one machine")
    parser.add_argument("--price", type=float, default=0.0, help="dollars an hour, of one machine")
    parser.add_argument("--rows", type=int, default=64, help="of its batch")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    own = f"{options.speed:g} × real time" if options.speed else ""
    kinds = (Kind(own, options.speed, options.price, options.rows),) if own else KINDS
    counted = {minutes: count(minutes) for minutes in options.minutes}
    runs = [simulate(kind, options.hours, minutes, counted[minutes]) for kind in kinds for minutes in options.minutes]
    console = Console(soft_wrap=True)
    for minutes, asked in counted.items():
        for what, counts in asdict(asked).items():
            if what == "in_turn":
                console.print(f"{minutes:g} min, one after the other: {counts:.1f} for each job")
                continue
            told = ", ".join(f"{number:g} {name}" for name, number in sorted(counts.items()))
            console.print(f"{minutes:g} min, {what}: {told}")
    console.print(table(runs), markup=False, highlight=False)
    if options.json:
        options.json.write_text(json.dumps({"requests": [asdict(each) for each in counted.values()],
                                            "runs": [asdict(run) for run in runs]}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
