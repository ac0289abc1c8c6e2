"""What the machines of a fleet told CloudWatch: how many were ready, and how much audio they thought to wait."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from transcribe.fleet import gauges

from baker.aws.client import aws_errors
from baker.context import BakeContext

MINUTE, DAY = 60, 86_400.0
KEPT = ((15 * DAY, MINUTE), (63 * DAY, 5 * MINUTE), (float("inf"), 60 * MINUTE))  # until this age, at these periods
MOST = 1440  # figures of each kind that are asked for
ASKED = (("ready", gauges.SPEED, "SampleCount"), ("waiting", gauges.WAITING, "Average"))


@dataclass(frozen=True)
class Figure:
    """Figures by the Unix time at which their period begins, the oldest first."""

    moments: Sequence[float]
    values: Sequence[float]

    def mean(self, begin: float, end: float) -> float | None:
        """Of those of the span, or else the last one before it; None before the first."""
        first, after = bisect_left(self.moments, begin), bisect_left(self.moments, end)
        found = self.values[first:after] or self.values[max(first - 1, 0) : first]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True)
class Told:
    """`ready`: how many machines told their speed in a minute; `waiting`: seconds of audio, as they estimate it."""

    ready: Figure
    waiting: Figure


def read(context: BakeContext, begin: float, end: float, now: float) -> Told | None:
    """The figures between two Unix times; None if there are none, as of a fleet whose `wait_minutes` are 0. Raises
    AwsError."""
    queue, least = context.config.fleet.queue, (end - begin) / MOST
    period = next(seconds for age, seconds in KEPT if now - begin < age)
    while period < least:
        period *= 2
    queries = [
        {
            "Id": identity,
            "MetricStat": {
                "Metric": {
                    "Namespace": gauges.NAMESPACE, "MetricName": name, "Dimensions": gauges.dimensions(queue),
                },
                "Period": period,
                "Stat": statistic,
            },
        }
        for identity, name, statistic in ASKED
    ]  # fmt: skip
    with aws_errors("GetMetricData"):
        found = context.clients.other("cloudwatch").get_metric_data(
            MetricDataQueries=queries,
            StartTime=datetime.fromtimestamp(begin // period * period, UTC),
            EndTime=datetime.fromtimestamp(end + period, UTC),
            ScanBy="TimestampAscending",
        )["MetricDataResults"]
    figures = {
        each["Id"]: Figure([moment.timestamp() for moment in each["Timestamps"]], list(each["Values"]))
        for each in found
    }
    ready, waiting = figures["ready"], figures["waiting"]
    told = Told(Figure(ready.moments, [count / (period / MINUTE) for count in ready.values]), waiting)
    return told if ready.values or waiting.values else None
