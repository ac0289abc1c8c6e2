"""CloudWatch's figures: those that clients put, and those of SQS and Auto Scaling, which AWS puts by itself."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from moto.autoscaling.models import autoscaling_backends
from moto.cloudwatch.models import MetricAggregatedDatum, cloudwatch_backends
from moto.sqs.models import sqs_backends

from localcloud.aws.moto_images import ACCOUNT
from localcloud.aws.steward.metric_math import Value, evaluate

MINUTE = 60
Own = tuple[str, str, str, str, float]  # namespace, metric, dimension, its value, the figure
STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Minimum": min,
    "Maximum": max,
    "Average": lambda values: sum(values) / len(values),
    "SampleCount": lambda values: float(len(values)),
}


class Figures:
    """One region's."""

    def __init__(self, region: str) -> None:
        self._cloudwatch: Any = cloudwatch_backends[ACCOUNT][region]
        self._sqs: Any = sqs_backends[ACCOUNT][region]
        self._scaling: Any = autoscaling_backends[ACCOUNT][region]
        self._told = 0

    def tell(self, now: float) -> None:
        """Put AWS' own figures of this minute, once."""
        minute = int(now // MINUTE * MINUTE)
        if minute == self._told:
            return
        self._told = minute
        at = datetime.fromtimestamp(minute, UTC).replace(tzinfo=None)
        for namespace, name, dimension, about, value in [*self._of_queues(), *self._of_groups()]:
            datum = {"MetricName": name, "Dimensions": [{"Name": dimension, "Value": about}], "Value": float(value)}
            self._cloudwatch.put_metric_data(namespace, [{**datum, "Timestamp": at}])

    def _of_queues(self) -> Iterator[Own]:
        for queue in list(self._sqs.queues.values()):
            visible, held = queue.approximate_number_of_messages, queue.approximate_number_of_messages_not_visible
            yield "AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.name, visible
            yield "AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", queue.name, held

    def _of_groups(self) -> Iterator[Own]:
        for group in list(self._scaling.autoscaling_groups.values()):
            states = [state.lifecycle_state for state in group.instance_states]
            values = {
                "GroupDesiredCapacity": group.desired_capacity,
                "GroupMinSize": group.min_size,
                "GroupMaxSize": group.max_size,
                "GroupInServiceInstances": states.count("InService"),
                "GroupTotalInstances": len(states),
            }
            for name in set(values) & set(group.metrics):
                yield "AWS/AutoScaling", name, "AutoScalingGroupName", group.name, values[name]

    def of(self, alarm: Any, start: int, period: int) -> Value:
        """What an alarm looks at, in the period that begins at `start`, a Unix time."""
        if not alarm.metric_data_queries:
            about = {each.name: each.value for each in alarm.dimensions}
            return self._statistic((alarm.namespace, alarm.metric_name), about, alarm.statistic, (start, period))
        values: dict[str, Value] = {}
        for query in alarm.metric_data_queries:
            if query.metric_stat:
                metric = query.metric_stat.metric
                about = {each.name: each.value for each in metric.dimensions}
                which = (metric.namespace, metric.metric_name)
                values[query.id] = self._statistic(which, about, query.metric_stat.stat, (start, period))
        result = None
        for query in alarm.metric_data_queries:
            if query.expression:
                values[query.id] = evaluate(query.expression, values)
            if query.return_data in (None, True, "true"):
                result = values[query.id]
        return result

    def _statistic(self, which: tuple[str, str], about: Mapping[str, str], stat: str, span: tuple[int, int]) -> Value:
        start, period = span
        found: list[float] = []
        for datum in list(self._cloudwatch.metric_data):
            same = (datum.namespace, datum.name) == which and {d.name: d.value for d in datum.dimensions} == about
            if same and start <= _seconds(datum.timestamp) < start + period:
                found += _values(datum)
        return STATISTICS[stat](found) if found else None


def _values(datum: Any) -> list[float]:
    """The figures that a datum stands for; of a set of statistics its mean, as often as it counts."""
    if isinstance(datum, MetricAggregatedDatum):
        return [datum.sum / datum.sample_count] * int(datum.sample_count)
    return [datum.value]


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
