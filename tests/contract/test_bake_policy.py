"""The policy document allows the calls that the launcher makes, and no other; every request fits AWS's own model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from baker import cli
from baker.aws import iam_policy, requests
from baker.bake import pipeline, plan, steps
from baker.config import FleetSection, ImageSection, LauncherConfig, SourceSection
from baker.context import BakeContext
from baker.deploy import canary, roll, serve, template
from baker.doctor import disks, examination
from baker.errors import BakeError
from baker.fleet import drops
from baker.fleet.cloud import make_queues
from baker.images import publish
from baker.recovery import cleanup, records
from localcloud.aws.moto_instances import MotoRegion
from support.fake_cloud import REGION, Cloud
from support.fake_machine import FakeMachine
from support.made_images import ACCOUNT, KEYS, client, made, publisher, served
from support.recorder import Recorder, model_faults
from support.served_machines import served_machines

pytestmark = pytest.mark.slow


def fails(machine: FakeMachine) -> None:
    machine.put("report", machine.report(verdict="failure", reason="no room"))


def source_by_parameter(cloud: Cloud) -> None:
    ssm: Any = cloud.session.client("ssm", endpoint_url=cloud.context.config.aws.endpoint_url)
    ssm.put_parameter(Name="/base/ami", Value=cloud.context.config.source.ami, Type="String")
    config = replace(cloud.context.config, source=SourceSection(ssm_parameter="/base/ami"))
    pipeline.bake(replace(cloud.context, config=config), steps.BakeOptions())


def failed_verification(cloud: Cloud) -> None:
    cloud.fleet.scripts["verify"] = fails
    with pytest.raises(BakeError):
        cloud.bake()


def subnets(cloud: Cloud) -> None:
    instance = replace(
        cloud.context.config.instance,
        subnets=tuple(subnet["SubnetId"] for subnet in cloud.ec2.describe_subnets()["Subnets"]),
    )
    pipeline.bake(replace(cloud.context, config=replace(cloud.context.config, instance=instance)), steps.BakeOptions())


def published(cloud: Cloud) -> None:
    context = publisher(cloud, accounts=(ACCOUNT,))
    for image in (made(cloud, "one"), made(cloud, "two")):
        publish.publish_image(context, image)
    publish.roll_back(context)


def swept(cloud: Cloud) -> None:
    """A bake that is long over has left a machine and a volume."""
    tags = [{"Key": requests.TAG_BAKE, "Value": "20200101-000000-abcdef"}]
    zone = cloud.ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    cloud.ec2.create_volume(AvailabilityZone=zone, Size=1, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}])
    records.survey(cloud.context)
    cleanup.remove(cloud.context, cleanup.overdue(cloud.context, cloud.context.now()))
    assert cloud.ec2.describe_volumes()["Volumes"] == []


def launched(cloud: Cloud) -> None:
    cloud.fleet.end()  # what serves takes no part in a bake
    context = served(cloud)
    publish.publish_image(context, made(cloud, "one"))
    for keys in ("", KEYS):
        told = template.service_setup(context.root, serve.with_keys(context, keys).config)
        serve.template(context, told)
    serve.one(context)
    for _ in range(2):
        serve.group(context, told)
    missing(context)
    serve.end(context)


def missing(context: BakeContext) -> None:
    """A group that lacks machines is asked why."""
    launch = replace(context.config.launch, min_size=9)
    context = replace(context, config=replace(context.config, launch=launch))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "RUNNING_SECONDS", 1.0)
        with pytest.raises(BakeError):
            serve.members(context)


def examined(cloud: Cloud) -> None:
    assert list(examination.whole(cloud.context))
    config = replace(cloud.context.config, image=ImageSection(kms_key="alias/none"))
    [key] = disks.image_key(replace(cloud.context, config=config))
    assert key.verdict == "fails"


def planned(cloud: Cloud) -> None:
    context = cloud.context
    plan.permitted(context, plan.make_plan(context))
    assert context.prices.hourly(context.config) == {"g4dn.xlarge": None}  # moto has no price list


def joined(cloud: Cloud) -> None:
    config = replace(cloud.context.config, fleet=FleetSection(queue="speech"))
    for _ in range(2):
        context = replace(cloud.context, config=config)
        drops.listen(context, make_queues(context))


def grown(cloud: Cloud) -> None:
    cloud.fleet.end()
    context = served(cloud, keys_file=KEYS)
    publish.publish_image(context, made(cloud, "one"))
    for minutes in (30, 0):
        fleet = FleetSection(queue="speech", profile="fleet", wait_minutes=minutes)
        context = replace(context, config=replace(context.config, fleet=fleet))
        setup = template.service_setup(context.root, context.config)
        serve.template(context, setup)
        serve.group(context, setup)
    serve.end(context)


def rolled(cloud: Cloud) -> None:
    """A new image replaces a group's machine, and one whose canary of a fleet is silent does not."""
    cloud.fleet.end()
    MotoRegion(REGION)
    context = served(cloud, keys_file=KEYS, min_size=1, max_size=1)
    publish.publish_image(context, made(cloud, "one"))
    setup = template.service_setup(context.root, context.config)
    serve.template(context, setup)
    serve.group(context, setup)
    with served_machines(cloud.ec2) as machines:
        roll.forward(context, made(cloud, "two"), machines.reach)
    client(cloud, "iam", REGION).create_instance_profile(InstanceProfileName="fleet")
    fleet = replace(context.config, fleet=FleetSection(queue="speech", profile="fleet"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary, "FIRST_SECONDS", 1.0)
        with pytest.raises(BakeError, match="look for another cause"):
            roll.forward(replace(context, config=fleet), made(cloud, "three"), machines.reach)


# What a launcher does in its life; whoever adds a call to the policy table adds what makes it here.
JOURNEYS: tuple[Callable[[Cloud], object], ...] = (
    source_by_parameter,
    failed_verification,
    subnets,
    published,
    swept,
    launched,
    joined,
    grown,
    rolled,
    planned,
    examined,
)


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.__name__)
def test_every_call_of_a_launcher_is_declared(
    cloud: Cloud, recorder: Recorder, journey: Callable[[Cloud], object]
) -> None:
    journey(cloud)  # the fixture itself refuses a call that is not declared
    assert recorder.calls


def test_every_declared_call_was_made_and_fits_the_service_model(recorder: Recorder) -> None:
    """Runs after the journeys, whose recordings it reads."""
    declared = (*iam_policy.CALLS, *iam_policy.FLEET_CALLS, *iam_policy.ROLL_CALLS)
    assert set(recorder.calls) == {(call.service, call.operation) for call in declared}
    assert recorder.faults() == []


def test_a_request_that_does_not_fit_the_model_is_seen(recorder: Recorder) -> None:
    shape = recorder.models["ec2", "RunInstances"].input_shape
    good = recorder.calls["ec2", "RunInstances"][0]
    assert model_faults({**good, "InstanceTypo": "g4dn.xlarge"}, shape)
    assert model_faults({**good, "InstanceInitiatedShutdownBehavior": "vanish"}, shape)


def test_the_policy_is_printed_without_asking_aws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bake.toml"
    file.write_text('[aws]\nregion = "cn-north-1"\n[s3]\nbucket = "b"\n[source]\nami = "ami-1"\n')
    assert cli.main(["plan", "--policy", "--config", str(file)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert "arn:aws-cn:s3:::b/transcribe-bake/*" in json.dumps(printed)


LOOKS = ("pricing:GetProducts", "servicequotas:GetServiceQuota", "ec2:GetEbsDefaultKmsKeyId")  # of no resource


def key_statements(config: LauncherConfig) -> list[Any]:
    """Those that use a key; looking at one's state is always allowed."""
    using = [s for s in iam_policy.document(config)["Statement"] if any(a.startswith("kms:") for a in s["Action"])]
    return [statement for statement in using if statement["Action"] != ["kms:DescribeKey"]]


@pytest.mark.parametrize(
    ("named", "resource", "alias"),
    [
        ("alias/images", "arn:aws:kms:*:*:key/*", "alias/images"),
        ("arn:aws:kms:eu-north-1:111122223333:alias/images", "arn:aws:kms:*:*:key/*", "alias/images"),
        ("0d990263-018e-4e65-a703-eff731de951e", "arn:aws:kms:*:*:key/0d990263-018e-4e65-a703-eff731de951e", None),
        ("arn:aws:kms:eu-north-1:111122223333:key/mrk-1", "arn:aws:kms:eu-north-1:111122223333:key/mrk-1", None),
    ],
)
def test_a_key_of_ones_own_may_be_used_by_ec2_and_nobody_else(
    cloud: Cloud, recorder: Recorder, named: str, resource: str, alias: str | None
) -> None:
    """https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html#ebs-encryption-permissions"""
    config = cloud.context.config
    assert key_statements(config) == []
    abroad = replace(config.publish, regions=("eu-west-1",))
    config = replace(config, image=replace(config.image, kms_key=named), publish=abroad)
    via, grants = key_statements(config)
    assert set(via["Action"]) == {
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo",
    }  # fmt: skip
    assert grants["Action"] == ["kms:CreateGrant"]
    aliases = {"ForAnyValue:StringLike": {"kms:ResourceAliases": alias}} if alias else {}
    expected = {"StringLike": {"kms:ViaService": "ec2.*.amazonaws.com"}, **aliases}
    assert (via["Resource"], via["Condition"]) == ([resource], expected)
    assert grants["Resource"] == [resource]
    assert grants["Condition"] == {**expected, "Bool": {"kms:GrantIsForAWSResource": "true"}}
    context = replace(cloud.context, config=config)
    plan.permitted(context, plan.make_plan(context))
    [disk] = recorder.calls["ec2", "RunInstances"][-1]["BlockDeviceMappings"]
    assert disk["Ebs"]["KmsKeyId"] == named


def test_the_policy_confines_what_can_be_confined(cloud: Cloud) -> None:
    statements = iam_policy.document(cloud.context.config)["Statement"]
    for statement in statements:
        looks = all(":Describe" in action or action in LOOKS for action in statement["Action"])
        assert looks or statement["Resource"] != ["*"], statement
    assert "key-pair" not in json.dumps(statements)
    assert "{" not in "".join(r for s in statements for r in s["Resource"])
    ends = next(s for s in statements if "ec2:TerminateInstances" in s["Action"])
    assert ends["Condition"] == {"Null": {"aws:ResourceTag/transcribe:bake": "false"}}
