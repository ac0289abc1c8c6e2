"""The ledger of a fleet's run: machines, audio that waits, speed and cost over time, as a table and as a picture.

One page that fetches nothing. It is made of the states of the jobs, so that it shows machines while they work, and of
what machines told CloudWatch.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import jinja2
from transcribe.fleet.documents import State

from baker.errors import UsageError
from baker.fleet.figures import Told

ROWS, SAMPLES = 24, 240  # of the table, and of the picture
WIDTH, HEIGHT, LEFT = 1080, 110, 90  # pixels of one curve
HOUR = 3600.0


class Line:
    """A figure that jumps at moments and stays in between."""

    def __init__(self, changes: Iterable[tuple[float, float]]) -> None:
        """`changes` are moments, in any order, each with what is added then."""
        ordered = sorted(changes)
        self._moments = [moment for moment, _ in ordered]
        self._values = list(accumulate((change for _, change in ordered), initial=0.0))
        steps = zip(self._values[1:], self._moments, self._moments[1:], strict=False)
        self._areas = list(accumulate((value * (end - begin) for value, begin, end in steps), initial=0.0))

    def at(self, moment: float) -> float:
        return self._values[bisect_right(self._moments, moment)]

    def mean(self, begin: float, end: float) -> float:
        return (self._area(end) - self._area(begin)) / (end - begin)

    def _area(self, moment: float) -> float:
        """Below the line, until this moment."""
        number = bisect_right(self._moments, moment)
        if not number:
            return 0.0
        return self._areas[number - 1] + self._values[number] * (moment - self._moments[number - 1])


@dataclass(frozen=True)
class Row:
    """A span of the run, `minute` minutes after its beginning: means, and what was done in it."""

    minute: float
    machines: float
    queue: float  # seconds of audio that wait
    speed: float  # seconds of audio in a second, of all machines
    hours: float  # of audio, done so far
    cost: float | None  # US dollars an hour of audio, of the jobs that ended in it
    ready: float | None = None  # machines that were ready, as they told CloudWatch
    waiting: float | None = None  # seconds of audio that wait, as they told it


@dataclass(frozen=True)
class Ledger:
    """The lines of a run between two Unix times."""

    begin: float
    end: float
    jobs: int
    machines: Line
    queue: Line
    speed: Line
    hours: Line
    priced: Line  # hours of audio whose cost is known
    dollars: Line
    told: Told | None = None

    def rows(self, number: int) -> Iterator[Row]:
        """The run in so many spans of the same length."""
        step = (self.end - self.begin) / number
        for each in range(number):
            begin, end = self.begin + each * step, self.begin + (each + 1) * step
            priced, dollars = (line.at(end) - line.at(begin) for line in (self.priced, self.dollars))
            yield Row(
                minute=(end - self.begin) / 60,
                machines=self.machines.mean(begin, end),
                queue=max(0.0, self.queue.mean(begin, end)),
                speed=self.speed.mean(begin, end),
                hours=self.hours.at(end),
                cost=dollars / priced if priced > 0 else None,
                ready=self.told.ready.mean(begin, end) if self.told else None,
                waiting=self.told.waiting.mean(begin, end) if self.told else None,
            )


def read(states: Sequence[State]) -> Ledger:
    """The ledger of these jobs. Raises UsageError if none of them has ended."""
    worked = [each for each in states if each.started is not None and each.finished is not None and each.machine]
    spans = [(each, each.started or 0.0, max(each.finished or 0.0, (each.started or 0.0) + 0.001)) for each in worked]
    if not spans:
        raise UsageError("no job has ended yet, so there is no ledger: bake.py jobs --watch waits for that")
    waits = [(each.created, each.seconds) for each in states]
    waits += [(moment, -each.seconds) for each in states if (moment := each.started or each.finished)]
    done = [(end, each.seconds / HOUR) for each, _, end in spans if each.status == "done"]
    paid = [(each, end) for each, _, end in spans if each.dollars_per_hour is not None and each.status == "done"]
    rates = [(each.seconds / (end - begin), begin, end) for each, begin, end in spans if each.status == "done"]
    return Ledger(
        begin=min(each.created or each.started or 0.0 for each in worked),
        end=max(end for _, _, end in spans),
        jobs=len(states),
        machines=Line(change for span in _busy(spans) for change in ((span[0], 1.0), (span[1], -1.0))),
        queue=Line(waits),
        speed=Line(change for rate, begin, end in rates for change in ((begin, rate), (end, -rate))),
        hours=Line(done),
        priced=Line((end, each.seconds / HOUR) for each, end in paid),
        dollars=Line((end, each.seconds / HOUR * (each.dollars_per_hour or 0.0)) for each, end in paid),
    )


def _busy(spans: Iterable[tuple[State, float, float]]) -> Iterator[tuple[float, float]]:
    """When machines had work, each of them from the beginning of its first job to the end of the last that overlaps."""
    last: tuple[str, float, float] | None = None
    for machine, begin, end in sorted((each.machine, begin, end) for each, begin, end in spans):
        if last and last[0] == machine and begin <= last[2]:
            last = (machine, last[1], max(last[2], end))
            continue
        if last:
            yield last[1:]
        last = (machine, begin, end)
    if last:
        yield last[1:]


def html(ledger: Ledger) -> str:
    """The page."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    fine = list(ledger.rows(SAMPLES))
    curves = [
        ("machines at work", [row.machines for row in fine], "{:,.1f}"),
        ("seconds of audio that wait", [row.queue for row in fine], "{:,.0f}"),
        ("times real time, all machines", [row.speed for row in fine], "{:,.0f}"),
        ("US dollars an hour of audio", _carried([row.cost for row in fine]), "{:,.4f}"),
    ]
    if ledger.told:
        curves += [
            ("machines ready, as they told CloudWatch", _carried([row.ready for row in fine]), "{:,.1f}"),
            ("seconds of audio that wait, as machines told", _carried([row.waiting for row in fine]), "{:,.0f}"),
        ]
    return environment.get_template("ledger.html").render(
        began=datetime.fromtimestamp(ledger.begin, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cards=list(_cards(ledger)),
        curves=[(name, *_drawn(values, form)) for name, values, form in curves],
        rows=list(ledger.rows(ROWS)),
        told=ledger.told is not None,
        minutes=(ledger.end - ledger.begin) / 60,
        geometry={"width": WIDTH, "height": HEIGHT, "left": LEFT},
    )


def _carried(values: Iterable[float | None]) -> list[float]:
    """What is not known is as it was before."""
    known = 0.0
    return [known := known if value is None else value for value in values]


def _drawn(values: Sequence[float], form: str) -> tuple[str, str]:
    """The points of a curve, and its highest value."""
    top = max(values) or 1.0
    step = (WIDTH - LEFT) / (len(values) - 1)
    points = (
        f"{LEFT + number * step:.1f},{HEIGHT - value / top * (HEIGHT - 20):.1f}" for number, value in enumerate(values)
    )
    return " ".join(points), form.format(max(values))


def _cards(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """The figures that one looks for first, each with what it is."""
    span, hours = ledger.end - ledger.begin, ledger.hours.at(ledger.end)
    work = ledger.machines.mean(ledger.begin, ledger.end) * span / HOUR
    priced = ledger.priced.at(ledger.end)
    yield f"{ledger.jobs:,}", "jobs"
    yield f"{hours:,.2f}", "hours of audio done"
    yield f"{span / 60:,.1f}", "minutes in all"
    yield f"{work:,.2f}", "machine hours of work"
    yield f"{hours / work:,.0f} ×" if work else "–", "real time, a machine at work"
    yield f"{ledger.dollars.at(ledger.end) / priced:.4f}" if priced else "–", "US dollars an hour of audio"
