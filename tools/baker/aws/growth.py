"""How a fleet's group grows: policies of Auto Scaling, and CloudWatch's alarms that start it from zero.

They only add machines; those end themselves when there is no work for them.
"""

from collections.abc import Mapping
from typing import Any

from transcribe.fleet import gauges
from transcribe.fleet.layout import FINISH_HOOK, priority_queue

from baker.aws import requests
from baker.aws.client import Clients, aws_errors, unless_missing

WARMUP_SECONDS = 900  # until a new machine with a disk of the usual size takes jobs: it is fetched from the snapshot
SILENT_SECONDS = 900  # until a machine that ends and says nothing is ended; with what it says, up to 25 hours
PERIOD_SECONDS = 60  # SQS and the machines tell their figures so often
WAIT, FROM_ZERO = "wait", "from-zero"  # the policies, after the group's name


class Growth:
    """The policies and alarms of one region's groups, found by the group's name."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def let_finish(self, group: str) -> None:
        """Let a machine that ends finish its work first: it says itself that it is not done, and when it is."""
        with aws_errors("PutLifecycleHook"):
            self._clients.autoscaling.put_lifecycle_hook(
                AutoScalingGroupName=group,
                LifecycleHookName=FINISH_HOOK,
                LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
                HeartbeatTimeout=SILENT_SECONDS,
                DefaultResult="CONTINUE",
            )

    def put(self, group: str, queue: str, wait_minutes: int, tags: Mapping[str, str], *, patience: float = 1.0) -> None:
        """Let the group grow so that what waits in the fleet's queues is begun within so many minutes.

        `patience`: how many times as long as usual a first start takes. Who does not wait for it starts too many.
        """
        scaling, cloudwatch = self._clients.autoscaling, self._clients.other("cloudwatch")
        warmup = int(WARMUP_SECONDS * patience)
        with aws_errors("EnableMetricsCollection"):  # it costs nothing
            scaling.enable_metrics_collection(
                AutoScalingGroupName=group, Granularity="1Minute", Metrics=["GroupDesiredCapacity"]
            )
        with aws_errors("PutScalingPolicy"):
            scaling.put_scaling_policy(
                AutoScalingGroupName=group,
                PolicyName=_policy(group, WAIT),
                PolicyType="TargetTrackingScaling",
                EstimatedInstanceWarmup=warmup,
                TargetTrackingConfiguration=tracking(queue, wait_minutes),  # type: ignore[arg-type]
            )
            made = scaling.put_scaling_policy(
                AutoScalingGroupName=group,
                PolicyName=_policy(group, FROM_ZERO),
                PolicyType="StepScaling",
                AdjustmentType="ChangeInCapacity",
                StepAdjustments=[{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
                EstimatedInstanceWarmup=warmup,
            )
        for name, each in _alarms(group, queue).items():
            alarm = from_zero(group, each)
            with aws_errors("PutMetricAlarm"):
                cloudwatch.put_metric_alarm(
                    AlarmName=name, AlarmActions=[made["PolicyARN"]], Tags=requests.tag_list(tags), **alarm
                )

    def remove(self, group: str, queue: str) -> None:
        """Let the group grow no more; what is not there counts as removed."""
        scaling = self._clients.autoscaling
        with aws_errors("DescribePolicies"):
            found = scaling.describe_policies(AutoScalingGroupName=group)["ScalingPolicies"]
        ours = {_policy(group, WAIT), _policy(group, FROM_ZERO)}
        for name in sorted({policy["PolicyName"] for policy in found} & ours):
            with aws_errors("DeletePolicy"):
                scaling.delete_policy(AutoScalingGroupName=group, PolicyName=name)
        self.remove_alarms(group, queue)

    def remove_alarms(self, group: str, queue: str) -> None:
        """Remove what is not removed with the group."""
        cloudwatch = self._clients.other("cloudwatch")
        for name in _alarms(group, queue):  # one by one: AWS removes none of several if one is not there
            unless_missing("DeleteAlarms", lambda name=name: cloudwatch.delete_alarms(AlarmNames=[name]))  # type: ignore[misc]


def tracking(queue: str, wait_minutes: int) -> dict[str, Any]:
    """How many machines there are to be: as many as it takes that all audio which waits is begun in time."""
    return {
        "TargetValue": wait_minutes * 60.0,
        "DisableScaleIn": True,
        "CustomizedMetricSpecification": {
            "Metrics": [
                _figure("waiting", (gauges.NAMESPACE, gauges.WAITING), gauges.dimensions(queue), "Average"),
                _figure("speed", (gauges.NAMESPACE, gauges.SPEED), gauges.dimensions(queue), "Sum"),
                {"Id": "wait", "Expression": "waiting / speed", "Label": "seconds of wait", "ReturnData": True},
            ]
        },
    }


def from_zero(group: str, queue: str) -> dict[str, Any]:
    """An alarm that messages wait in a queue of a group that wants no machine: nobody tells how much audio it is."""
    visible = "ApproximateNumberOfMessagesVisible"
    its_queue, its_group = [{"Name": "QueueName", "Value": queue}], [{"Name": "AutoScalingGroupName", "Value": group}]
    period: dict[str, Any] = {"Period": PERIOD_SECONDS}
    figures = [
        _figure("messages", ("AWS/SQS", visible), its_queue, "Maximum", **period),
        _figure("machines", ("AWS/AutoScaling", "GroupDesiredCapacity"), its_group, "Maximum", **period),
    ]
    needed = {"Id": "needed", "Expression": "IF(messages >= 1 AND machines < 1, 1, 0)", "ReturnData": True}
    return {
        "AlarmDescription": f"work for the group {group}, which has no machine",
        "Metrics": [*figures, needed],
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "Threshold": 1.0,
        "EvaluationPeriods": 1,
        "TreatMissingData": "notBreaching",
    }


def _policy(group: str, name: str) -> str:
    return f"{group}-{name}"


def _alarms(group: str, queue: str) -> dict[str, str]:
    """The queue that each of a group's alarms looks at, by the alarm's name."""
    return {f"{group}-{FROM_ZERO}": queue, f"{group}-{FROM_ZERO}-priority": priority_queue(queue)}


def _figure(name: str, metric: tuple[str, str], about: list[dict[str, str]], stat: str, **more: Any) -> dict[str, Any]:
    """A figure by the name that an expression uses; `metric` is its namespace and its own name."""
    found = {"Namespace": metric[0], "MetricName": metric[1], "Dimensions": about}
    return {"Id": name, "MetricStat": {"Metric": found, "Stat": stat, **more}, "ReturnData": False}
