"""Scaling policies: how many machines a group is to have when an alarm is raised."""

import math
from collections.abc import Callable
from typing import Any

from moto.cloudwatch.models import Dimension, Metric, MetricDataQuery, MetricStat, cloudwatch_backends

from localcloud.aws.moto_images import ACCOUNT
from localcloud.aws.steward.groups import Groups, counted

SIMPLE, STEP, TRACKING = "SimpleScaling", "StepScaling", "TargetTrackingScaling"
WARMUP_SECONDS = 300  # of a policy that names none
HIGH, LOW = "AlarmHigh", "AlarmLow"
PERIODS = {HIGH: 3, LOW: 15}  # of a minute, until target tracking acts
LOWER = 0.9  # of the target: below it target tracking takes machines away


class Policies:
    """One region's."""

    def __init__(self, region: str, groups: Groups, clock: Callable[[], float]) -> None:
        self._cloudwatch: Any = cloudwatch_backends[ACCOUNT][region]
        self._groups = groups
        self._clock = clock
        self._cool: dict[str, float] = {}  # until when a group's simple policies rest

    def tick(self) -> None:
        """Keep the alarms by which target tracking is raised, as AWS does."""
        policies = list(self._groups.backend.policies.values())
        groups = {group.name for group in self._groups.all()}
        wanted = {
            name: make
            for policy in policies
            if policy.policy_type == TRACKING and policy.auto_scaling_group_name in groups
            for name, make in _alarms(policy).items()
        }
        ours = [name for name in self._cloudwatch.alarms if name.startswith("TargetTracking-")]
        self._cloudwatch.delete_alarms([name for name in ours if name not in wanted])
        for name, make in wanted.items():
            known = self._cloudwatch.alarms.get(name)
            if known is None or known.threshold != make["threshold"]:
                self._cloudwatch.put_metric_alarm(name=name, **make)

    def act(self, arn: str, value: float, threshold: float) -> None:
        """Carry out the policy that an alarm names, at the figure that raised it; other actions do nothing here."""
        for policy in list(self._groups.backend.policies.values()):
            group = self._groups.backend.autoscaling_groups.get(policy.auto_scaling_group_name)
            if policy.arn == arn and group is not None:
                wanted = self._wanted(policy, group, value, threshold)
                if wanted is not None:
                    self._groups.want(group, wanted, f"the policy {policy.name} at {value:g}")

    def _wanted(self, policy: Any, group: Any, value: float, threshold: float) -> int | None:
        """The capacity that the policy wants; None if it changes nothing now."""
        desired = int(group.desired_capacity)
        if policy.policy_type == SIMPLE:
            if self._clock() < self._cool.get(group.name, 0.0):
                return None
            rest = group.default_cooldown if policy.cooldown is None else policy.cooldown
            self._cool[group.name] = self._clock() + rest
            return adjusted(policy, desired, int(policy.scaling_adjustment))
        warming = self._groups.warming(group, float(policy.estimated_instance_warmup or WARMUP_SECONDS))
        serving = max(0, len(counted(group)) - warming)
        step = step_of(policy, value - threshold)
        wanted: int | None = None
        if policy.policy_type == TRACKING:
            wanted = tracked(policy, serving if desired else 1, value)
        elif step is not None:
            wanted = adjusted(policy, serving if step > 0 else desired, step)
        if wanted is None or (wanted < desired and (warming or not shrinks(policy, value, threshold))):
            return None  # those that do not serve yet are waited for, before any is taken away
        return wanted


def tracked(policy: Any, serving: int, value: float) -> int:
    """As many machines as bring the figure to its target, if it goes down as they become more."""
    target = float(policy.target_tracking_configuration.TargetValue)
    return math.ceil(serving * value / target - 1e-9)


def shrinks(policy: Any, value: float, threshold: float) -> bool:
    """Whether the policy may take machines away at this figure."""
    if policy.policy_type == TRACKING:
        return value < float(policy.target_tracking_configuration.TargetValue)
    step = step_of(policy, value - threshold)
    return step is not None and (step < 0 or policy.adjustment_type == "ExactCapacity")


def step_of(policy: Any, above: float) -> int | None:
    """The adjustment of the step in which the figure lies, `above` the alarm's threshold or, if negative, below it."""
    for step in policy.step_adjustments:
        low = float(step.get("MetricIntervalLowerBound", -math.inf))
        high = float(step.get("MetricIntervalUpperBound", math.inf))
        if low <= above < high if above >= 0 else low < above <= high:
            return int(step["ScalingAdjustment"])
    return None


def adjusted(policy: Any, capacity: int, adjustment: int) -> int:
    """The capacity after an adjustment."""
    if policy.adjustment_type == "ExactCapacity":
        return adjustment
    if policy.adjustment_type == "ChangeInCapacity":
        return capacity + adjustment
    change = capacity * adjustment / 100
    least = int(policy.min_adjustment_magnitude or 1)
    whole = max(least, abs(int(change))) if change else 0
    return capacity + int(math.copysign(whole, adjustment))


def _alarms(policy: Any) -> dict[str, dict[str, Any]]:
    """The alarms of target tracking, by name; none for a figure that is not known here."""
    tracking = policy.target_tracking_configuration
    figure = getattr(tracking, "CustomizedMetricSpecification", None)
    if not figure:
        return {}
    target = float(tracking.TargetValue)
    made = {HIGH: ("GreaterThanThreshold", target), LOW: ("LessThanThreshold", target * LOWER)}
    if getattr(tracking, "DisableScaleIn", False):
        del made[LOW]
    return {
        f"TargetTracking-{policy.auto_scaling_group_name}-{kind}-{policy.name}": {
            **_figure(figure),
            "comparison_operator": comparison,
            "threshold": threshold,
            "evaluation_periods": PERIODS[kind],
            "description": "made by the local cloud for target tracking",
            "alarm_actions": [policy.arn],
        }
        for kind, (comparison, threshold) in made.items()
    }


def _figure(given: dict[str, Any]) -> dict[str, Any]:
    """A figure as moto's alarms have it."""
    return {
        "namespace": given.get("Namespace"),
        "metric_name": given.get("MetricName"),
        "dimensions": given.get("Dimensions") or [],
        "statistic": given.get("Statistic"),
        "period": 60,
        "metric_data_queries": [_query(each) for each in given.get("Metrics", [])],
    }


def _query(given: dict[str, Any]) -> MetricDataQuery:
    stat = None
    if told := given.get("MetricStat"):
        about = [Dimension(each["Name"], each["Value"]) for each in told["Metric"].get("Dimensions", [])]
        metric = Metric(told["Metric"]["MetricName"], told["Metric"]["Namespace"], about)
        stat = MetricStat(metric, told.get("Period"), told["Stat"], told.get("Unit"))
    period: Any = None  # moto cannot show an empty one
    return MetricDataQuery(
        given["Id"], given.get("Label", ""), period, given.get("ReturnData", True), given.get("Expression"), stat
    )
