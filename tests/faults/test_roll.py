"""Every AWS call of a roll-out, and what can happen to it: what serves goes on, and the same command again mends it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from baker import target
from baker.deploy import canary
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, FAULTS, KILLED, KILLED_AFTER, NOT_FOUND, Fault
from faults.launchers import Ended
from faults.test_aws_faults import EVERYTHING, Point, name_of_case, sample
from faults.test_fleet_launch import client
from localcloud.aws.moto_instances import MotoRegion
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from support.fake_cloud import BUCKET, REGION
from support.served_machines import served_machines

START = ["DescribeSubnets", "DescribeInstanceTypeOfferings", "RunInstances", "DescribeInstances by id"]
SAVE = ["PutObject roll-newsroom.json", "PutObject newsroom.json"]
SWEEP = ["DescribeInstances", "TerminateInstances"]
ROLL = [
    "DescribeImages", "DescribeSecurityGroups", "GetObject roll-newsroom.json", "PutObject roll-newsroom.json",
    "GetObject newsroom.json", "DescribeAutoScalingGroups", "GetParameterHistory", "DescribeImages by id",
    "DescribeInstances", "DescribeInstances", *START, *START, *SWEEP, *SWEEP, *SAVE,
    "ModifyImageAttribute", "EnableImageDeprecation", "DescribeImageAttribute", "CreateTags",
    "GetParameter", "PutParameter", "GetParameter",
    "DescribeAutoScalingGroups", "DescribeInstances", "GetParameter", *SAVE, "UpdateAutoScalingGroup",
    "DescribeAutoScalingGroups", "DescribeTargetHealth", "DescribeInstances",
    "TerminateInstanceInAutoScalingGroup", "DescribeAutoScalingGroups", *SAVE,
    "DescribeAutoScalingGroups", "DescribeInstances", "UpdateAutoScalingGroup", *SAVE, SAVE[0],
]  # fmt: skip
POINTS: list[Point] = [(name, Counter(ROLL[: index + 1])[name]) for index, name in enumerate(ROLL)]
KINDS = (*FAULTS, KILLED, KILLED_AFTER)
OWN = (
    "PutObject newsroom.json",
    "RunInstances",
    "UpdateAutoScalingGroup",
    "DescribeTargetHealth",
    "TerminateInstanceIn",
)
CASES = [(kind, point) for point in POINTS if EVERYTHING or point[0].startswith(OWN) for kind in KINDS]
Record = Callable[[str, object], None]


@dataclass
class Newsroom:
    """A group with one machine of a published image, and a new image."""

    lab: Lab
    old: str
    new: str

    def images(self) -> list[str]:
        """Those of the group's machines."""
        [group] = client(self.lab, "autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
        ids = [one["InstanceId"] for one in group["Instances"]]
        found = client(self.lab, "ec2").describe_instances(InstanceIds=ids)["Reservations"]
        return [one["ImageId"] for each in found for one in each["Instances"]]

    def roll(self, fault: Fault | None = None) -> Ended:
        return self.lab.launch("publish", self.new, "--roll", fault=fault)


@pytest.fixture
def newsroom(lab: Lab, tmp_path: Path) -> Iterator[Newsroom]:
    MotoRegion(REGION)  # groups start machines of the image that the parameter names
    ec2 = client(lab, "ec2")
    old, new = (
        ec2.register_image(Name=f"transcribe-{name}", RootDeviceName="/dev/xvda")["ImageId"] for name in ("old", "new")
    )
    tags = [{"Key": "transcribe:bake", "Value": "b"}, {"Key": "transcribe:verified", "Value": "true"}]
    ec2.create_tags(Resources=[old, new], Tags=tags)
    client(lab, "ssm").put_parameter(Name="/transcribe/image", Value=old, Type="String", Description="published")
    group = ec2.create_security_group(GroupName="serve", Description="d")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    keys = tmp_path / "keys"
    keys.write_text(f"newsroom {'a' * 64}\n")
    lab.configure(f'[launch]\nname = "newsroom"\nmax_size = 1\nkeys_file = "{keys}"\nsecurity_groups = ["{group}"]\n')
    assert lab.launch("launch", "--group").code == 0
    lab.patch.setattr(canary, "LEAST_SPEED", 0.0)  # both are as quick as this computer's other work lets them be
    with served_machines(ec2) as machines:
        lab.patch.setattr(target, "addresses", lambda *asked: (machines.reach(asked[3])[0], ""))
        yield Newsroom(lab, old, new)


def test_the_calls_of_a_roll_out_are_those_that_the_table_tries(newsroom: Newsroom) -> None:
    ended = newsroom.roll()
    assert ended.code == 0, ended.err
    assert newsroom.lab.cloud.log == ROLL
    assert (newsroom.images(), len(account.living())) == ([newsroom.new], 1)


@pytest.mark.parametrize(("kind", "point"), sample(CASES), ids=name_of_case)
def test_a_roll_out_that_goes_wrong_is_whole_after_the_same_command(
    newsroom: Newsroom, record_property: Record, kind: str, point: Point
) -> None:
    record_property("fault", (point[0], kind))
    fault = Fault(kind, *point)
    ended = newsroom.roll(fault)
    assert fault.hits, "the fault was never met"
    assert "Traceback" not in ended.err
    assert newsroom.images(), "no machine serves"
    if kind not in (KILLED, KILLED_AFTER):
        assert len(ended.err.splitlines()) == (1 if ended.code else 0), ended.err
        assert ended.code == 0 or kind in (DENIED, NOT_FOUND), ended.err
    again = newsroom.roll()
    assert again.code == 0, again.err
    assert (newsroom.images(), len(account.living())) == ([newsroom.new], 1)


CANARY = ("CreateQueue", "PutObject audio", "SendMessage", "DeleteQueue", "ListObjectsV2", "DeleteObject request.json")


@pytest.mark.parametrize(("kind", "point"), sample([(k, (c, 1)) for c in CANARY for k in FAULTS]), ids=name_of_case)
def test_a_canary_of_a_fleet_leaves_nothing_once_the_same_command_has_ended(
    newsroom: Newsroom, record_property: Record, kind: str, point: Point
) -> None:
    """Here no machine hears anything, which is nobody's fault."""
    record_property("fault", (point[0], kind))
    lab = newsroom.lab
    lab.patch.setattr(canary, "FIRST_SECONDS", 1.0)
    client(lab, "iam").create_instance_profile(InstanceProfileName="fleet")
    lab.configure('[fleet]\nqueue = "speech"\nprofile = "fleet"\n')
    fault = Fault(kind, *point)
    for ended in (newsroom.roll(fault), newsroom.roll()):
        assert (ended.code, len(ended.err.splitlines())) == (1, 1), ended.err
    assert fault.hits, "the fault was never met"
    assert "look for another cause" in ended.err
    assert "QueueUrls" not in client(lab, "sqs").list_queues()
    stored = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys
    assert [key for key in stored if key.startswith("transcribe-fleet/")] == []
    assert (newsroom.images(), len(account.living())) == ([newsroom.old], 1)
