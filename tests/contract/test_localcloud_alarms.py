"""The local cloud's alarms look at figures, and its scaling policies change what a group wants."""

from datetime import UTC, datetime
from typing import Any

import pytest
from baker import config
from baker.aws import client, growth
from localcloud.endpoint import BUCKET, REGION
from localcloud.machines import base_image
from support.running_cloud import SESSION, RunningCloud
from transcribe.fleet import gauges

WARM = growth.WARMUP_SECONDS


@pytest.fixture(name="groups")
def made_group(running: RunningCloud) -> Any:
    """Auto Scaling's client; there is an empty group `g` of up to 4 machines."""
    data = {"ImageId": base_image.source_ami(), "InstanceType": "g4dn.xlarge"}
    running.ec2.create_launch_template(LaunchTemplateName="one", LaunchTemplateData=data)
    scaling = running.client("autoscaling")
    where = {"AvailabilityZones": ["eu-north-1a"], "LaunchTemplate": {"LaunchTemplateName": "one"}}
    scaling.create_auto_scaling_group(AutoScalingGroupName="g", MinSize=0, MaxSize=4, DesiredCapacity=0, **where)
    return scaling


def wanted(groups: Any) -> int:
    [group] = groups.describe_auto_scaling_groups(AutoScalingGroupNames=["g"])["AutoScalingGroups"]
    assert len(group["Instances"]) == group["DesiredCapacity"]
    return int(group["DesiredCapacity"])


def put(running: RunningCloud, name: str, value: float) -> None:
    """A figure of this minute."""
    at = datetime.fromtimestamp(running.now(), UTC)
    datum = {"MetricName": name, "Value": value, "Timestamp": at, "Dimensions": gauges.dimensions("speech")}
    running.client("cloudwatch").put_metric_data(Namespace=gauges.NAMESPACE, MetricData=[datum])


def minutes(running: RunningCloud, number: int, waiting: float, speeds: list[float]) -> None:
    """So many minutes in which machines tell these figures."""
    for _ in range(number):
        for speed in speeds:
            put(running, gauges.WAITING, waiting)
            put(running, gauges.SPEED, speed)
        running.later(60)


def test_a_fleets_group_grows_from_zero_by_its_own_policies(running: RunningCloud, groups: Any) -> None:
    queue = running.client("sqs").create_queue(QueueName="speech")["QueueUrl"]
    where = {"region": REGION, "endpoint_url": f"http://{running.address}"}
    document = {"aws": where, "s3": {"bucket": BUCKET}, "source": {"ami": base_image.source_ami()}}
    clients = client.connect(config.from_mapping(document), SESSION)
    growth.Growth(clients).put("g", "speech", 10, {})
    running.later(60)
    shown = {each["AlarmName"] for each in running.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert shown == {"g-from-zero", "g-from-zero-priority", "TargetTracking-g-AlarmHigh-g-wait"}
    assert wanted(groups) == 0
    running.client("sqs").send_message(QueueUrl=queue, MessageBody="-")
    for _ in range(3):
        running.later(60)
    assert wanted(groups) == 1, "one more machine, however long the alarm is raised"
    minutes(running, 4, waiting=100_000.0, speeds=[50.0])
    assert wanted(groups) == 1, "one that does not serve yet is waited for"
    running.later(WARM)
    minutes(running, 3, waiting=60_000.0, speeds=[50.0])
    assert wanted(groups) == 2, "60,000 s at 50 s a second for each machine, within ten minutes"
    minutes(running, 3, waiting=400_000.0, speeds=[50.0])
    assert wanted(groups) == 4, "no more than the group may have"
    running.later(WARM)
    minutes(running, 20, waiting=0.0, speeds=[50.0] * 4)
    assert wanted(groups) == 4, "these policies take no machine away"


def test_target_tracking_takes_machines_away_if_it_may(running: RunningCloud, groups: Any) -> None:
    figure = {"Namespace": gauges.NAMESPACE, "MetricName": gauges.SPEED, "Statistic": "Average"}
    tracking = {"CustomizedMetricSpecification": {**figure, "Dimensions": gauges.dimensions("speech")}}
    policy = {"AutoScalingGroupName": "g", "PolicyName": "p", "PolicyType": "TargetTrackingScaling"}
    groups.put_scaling_policy(**policy, TargetTrackingConfiguration={**tracking, "TargetValue": 50.0})
    groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=4)
    running.later(600)
    minutes(running, 14, 0.0, [20.0])
    assert wanted(groups) == 4
    minutes(running, 1, 0.0, [20.0])
    assert wanted(groups) == 2
    groups.delete_policy(AutoScalingGroupName="g", PolicyName="p")
    running.later()
    assert running.client("cloudwatch").describe_alarms()["MetricAlarms"] == []


@pytest.mark.parametrize(
    ("policy", "figures", "sizes"),
    [
        ({"PolicyType": "SimpleScaling", "ScalingAdjustment": 1, "Cooldown": 120}, [60.0] * 4, [1, 1, 2, 2]),
        (
            {
                "PolicyType": "StepScaling",
                "EstimatedInstanceWarmup": 3600,
                "StepAdjustments": [
                    {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 20.0, "ScalingAdjustment": 1},
                    {"MetricIntervalLowerBound": 20.0, "ScalingAdjustment": 3},
                ],
            },
            [60.0, 60.0, 80.0, 60.0],
            [1, 1, 3, 3],
        ),
    ],
)
def test_steps_and_cooldowns(
    running: RunningCloud, groups: Any, policy: dict[str, Any], figures: list[float], sizes: list[int]
) -> None:
    named = {"AutoScalingGroupName": "g", "PolicyName": "p", "AdjustmentType": "ChangeInCapacity"}
    made = groups.put_scaling_policy(**named, **policy)
    metric = {"Namespace": gauges.NAMESPACE, "MetricName": gauges.SPEED, "Dimensions": gauges.dimensions("speech")}
    condition = {"ComparisonOperator": "GreaterThanThreshold", "Threshold": 50.0, "EvaluationPeriods": 1, "Period": 60}
    running.client("cloudwatch").put_metric_alarm(
        AlarmName="a", Statistic="Maximum", AlarmActions=[made["PolicyARN"]], **metric, **condition
    )
    seen = []
    for figure in figures:
        minutes(running, 1, 0.0, [figure])
        seen.append(wanted(groups))
    assert seen == sizes


@pytest.mark.parametrize(
    ("missing", "state"), [("breaching", "ALARM"), ("notBreaching", "OK"), ("missing", "INSUFFICIENT_DATA")]
)
def test_an_alarm_without_data(running: RunningCloud, missing: str, state: str) -> None:
    cloudwatch = running.client("cloudwatch")
    looked = {"Id": "m", "MetricStat": {"Metric": {"Namespace": "n", "MetricName": "m"}, "Period": 60, "Stat": "Sum"}}
    odd = [{**looked, "ReturnData": False}, {"Id": "e", "Expression": "RATE(m)", "ReturnData": True}]
    condition = {"ComparisonOperator": "LessThanThreshold", "Threshold": 1.0, "EvaluationPeriods": 2}
    for name, metrics in {"plain": [looked], "odd": odd}.items():
        cloudwatch.put_metric_alarm(AlarmName=name, Metrics=metrics, TreatMissingData=missing, **condition)
    running.later()
    states = {each["AlarmName"]: each for each in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert states["plain"]["StateValue"] == state
    assert (states["odd"]["StateValue"], states["odd"]["StateReason"]) == (
        "INSUFFICIENT_DATA",
        "not understood here: RATE(m)",
    )
