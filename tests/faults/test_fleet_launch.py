"""Every AWS call of `launch --group` for a fleet, and what can happen to it: the same command again mends it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from faults.conftest import Lab
from faults.faultcloud import DENIED, FAULTS, NOT_FOUND, Fault
from faults.test_aws_faults import Point, name_of_case, sample
from support.fake_cloud import BUCKET, REGION

LAUNCH = [
    "CreateQueue", "GetQueueAttributes", "CreateQueue", "CreateQueue",
    "GetQueueAttributes", "SetQueueAttributes", "GetBucketNotificationConfiguration",
    "PutBucketNotificationConfiguration",
    "GetParameter", "DescribeImages by id", "DescribeLaunchTemplateVersions", "CreateLaunchTemplate",
    "DescribeSubnets", "DescribeInstanceTypeOfferings", "DescribeSubnets", "DescribeTargetGroups", "CreateTargetGroup",
    "GetParameter", "DescribeImages by id", "DescribeAutoScalingGroups", "CreateAutoScalingGroup",
    "PutLifecycleHook",
    "EnableMetricsCollection", "PutScalingPolicy", "PutScalingPolicy", "PutMetricAlarm", "PutMetricAlarm",
]  # fmt: skip
POINTS: list[Point] = [(name, Counter(LAUNCH[: index + 1])[name]) for index, name in enumerate(LAUNCH)]
Record = Callable[[str, object], None]


@pytest.fixture
def newsroom(lab: Lab, tmp_path: Path) -> Lab:
    """A launcher with a published image and a fleet, of which nothing is there yet."""
    image = client(lab, "ec2").register_image(Name="published", RootDeviceName="/dev/xvda")["ImageId"]
    client(lab, "ssm").put_parameter(Name="/transcribe/image", Value=image, Type="String")
    group = client(lab, "ec2").create_security_group(GroupName="serve", Description="d")["GroupId"]
    keys = tmp_path / "keys"
    keys.write_text(f"newsroom {'a' * 64}\n")
    lab.configure(
        f'[launch]\nname = "newsroom"\nmin_size = 0\nkeys_file = "{keys}"\nsecurity_groups = ["{group}"]\n'
        '[fleet]\nqueue = "speech"\nprofile = "fleet"\n'
    )
    return lab


def client(lab: Lab, service: str) -> Any:
    session: Any = boto3.Session(region_name=REGION)
    return session.client(service, endpoint_url=lab.cloud_url)


def assert_whole(lab: Lab) -> None:
    """All is there, once."""
    scaling, sqs = client(lab, "autoscaling"), client(lab, "sqs")
    [group] = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["NewInstancesProtectedFromScaleIn"], group["HealthCheckType"]) == (True, "EC2")
    assert sorted(each["PolicyName"] for each in scaling.describe_policies()["ScalingPolicies"]) == [
        "newsroom-from-zero",
        "newsroom-wait",
    ]
    [hook] = scaling.describe_lifecycle_hooks(AutoScalingGroupName="newsroom")["LifecycleHooks"]
    assert hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_TERMINATING"
    alarms = [each["AlarmName"] for each in client(lab, "cloudwatch").describe_alarms()["MetricAlarms"]]
    assert {"newsroom-from-zero", "newsroom-from-zero-priority"} <= set(alarms)
    told = sqs.get_queue_attributes(QueueUrl=sqs.get_queue_url(QueueName="speech")["QueueUrl"], AttributeNames=["All"])
    assert len(json.loads(told["Attributes"]["Policy"])["Statement"]) == 1
    notified = client(lab, "s3").get_bucket_notification_configuration(Bucket=BUCKET)
    assert [each["QueueArn"] for each in notified["QueueConfigurations"]] == [told["Attributes"]["QueueArn"]]


def test_the_calls_of_a_launch_are_those_that_the_table_tries(newsroom: Lab) -> None:
    ended = newsroom.launch("launch", "--group")
    assert ended.code == 0, ended.err
    assert newsroom.cloud.log == LAUNCH
    assert_whole(newsroom)


@pytest.mark.parametrize(("kind", "point"), sample([(k, p) for p in POINTS for k in FAULTS]), ids=name_of_case)
def test_a_launch_that_goes_wrong_is_whole_after_the_same_command(
    newsroom: Lab, record_property: Record, kind: str, point: Point
) -> None:
    record_property("fault", (point[0], kind))
    fault = Fault(kind, *point)
    ended = newsroom.launch("launch", "--group", fault=fault)
    assert fault.hits, "the fault was never met"
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == (1 if ended.code else 0), ended.err
    assert ended.code == 0 or kind in (DENIED, NOT_FOUND), ended.err
    again = newsroom.launch("launch", "--group")
    assert again.code == 0, again.err
    assert_whole(newsroom)
