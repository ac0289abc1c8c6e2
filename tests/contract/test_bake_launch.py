"""What is launched from the published image, against moto over HTTP: template, machine, group, and their end."""

import base64
import io
import json
import math
from argparse import Namespace
from dataclasses import replace
from typing import Any

import pytest
from baker.aws import requests, volumes
from baker.commands import images
from baker.config import FleetSection
from baker.context import BakeContext
from baker.deploy import serve, template
from baker.deploy.template import KEYS as KEYS_PATH
from baker.deploy.template import PILLAR
from baker.display.progress import Display
from baker.errors import BakeError, UsageError
from baker.images import publish
from localcloud.aws.moto_instances import MotoRegion
from rich.console import Console
from support.fake_cloud import Cloud
from support.made_images import KEYS, client, made, served

pytestmark = pytest.mark.slow


@pytest.fixture(name="serving")
def published_and_ready_to_serve(cloud: Cloud) -> BakeContext:
    cloud.fleet.end()  # what serves takes no part in a bake
    context = served(cloud, name="newsroom", keys_file=KEYS, pillar={"batch": {"max_chunks": 4}})
    publish.publish_image(context, made(cloud, "one"))
    return context


def told(context: BakeContext) -> template.ServiceSetup:
    return template.service_setup(context.root, context.config)


def files(user_data: str) -> dict[str, str]:
    """The files that user-data writes, by path."""
    assert user_data.startswith("#cloud-config\n")
    document = json.loads(user_data.removeprefix("#cloud-config\n"))
    return {file["path"]: base64.b64decode(file["content"]).decode() for file in document["write_files"]}


def test_user_data_holds_digests_of_keys_and_overrides_only(serving: BakeContext) -> None:
    written = files(template.user_data(told(serving)))
    assert written[KEYS_PATH] == f"newsroom {'a' * 64}\n"
    assert json.loads(written[PILLAR].removeprefix("#!yaml\n"))["transcribe"] == {
        "auth": {"keys_file": KEYS_PATH},
        "host": "0.0.0.0",
        "batch": {"max_chunks": 4},
    }
    assert set(written) == {KEYS_PATH, PILLAR}


def test_a_machine_of_the_published_image_is_started_closed_and_tagged(cloud: Cloud, serving: BakeContext) -> None:
    serve.template(serving, told(serving))
    instance_id = serve.one(serving)
    [instance] = [i for i in cloud.instances() if i["InstanceId"] == instance_id]
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert instance["ImageId"] == cloud.images()[0]["ImageId"]
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert (tags["project"], tags[requests.TAG_LAUNCH]) == ("p", "newsroom")
    assert requests.TAG_BAKE not in tags, "a sweep of bakes would end it"


def test_a_template_has_a_version_for_each_change_and_follows_the_parameter(cloud: Cloud, serving: BakeContext) -> None:
    for context in (serving, serving, serve.with_keys(serving, ""), serve.with_keys(serving, "")):
        serve.template(context, told(context))
    versions = cloud.ec2.describe_launch_template_versions(LaunchTemplateName="newsroom")["LaunchTemplateVersions"]
    assert [version["VersionNumber"] for version in versions if version["DefaultVersion"]] == [2]
    assert len(versions) == 2
    second = made(cloud, "two")
    publish.publish_image(serving, second)
    instance = serve.one(serving)
    assert [i["ImageId"] for i in cloud.instances() if i["InstanceId"] == instance] == [second.id]


def test_a_group_is_healthy_while_it_is_ready(cloud: Cloud, serving: BakeContext) -> None:
    serve.template(serving, told(serving))
    target = serve.group(serving, told(serving))
    assert serve.group(serving, told(serving)) == target
    region = serving.config.aws.region
    [found] = client(cloud, "elbv2", region).describe_target_groups()["TargetGroups"]
    assert (found["HealthCheckPath"], found["Port"], found["TargetGroupArn"]) == ("/ready", 8000, target)
    [group] = client(cloud, "autoscaling", region).describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["HealthCheckType"], group["TargetGroupARNs"], group["MaxSize"]) == ("ELB", [target], 2)
    assert group["LaunchTemplate"]["LaunchTemplateName"] == "newsroom"


def test_a_groups_machines_are_ended_by_nobody_else_where_they_hold_jobs_of_a_fleet(
    cloud: Cloud, serving: BakeContext
) -> None:
    fleet = FleetSection(queue="speech", profile="fleet", idle_minutes=7)
    context = replace(serving, config=replace(serving.config, fleet=fleet))
    written = files(template.user_data(told(context)))[PILLAR]
    assert json.loads(written.removeprefix("#!yaml\n"))["transcribe"]["fleet"]["idle_minutes"] == 7
    scaling = client(cloud, "autoscaling", serving.config.aws.region)
    for each, expected in ((serving, ("ELB", False)), (context, ("EC2", True)), (serving, ("ELB", False))):
        serve.template(each, told(each))
        serve.group(each, told(each))
        [group] = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        assert (group["HealthCheckType"], group["NewInstancesProtectedFromScaleIn"]) == expected


def test_a_fleets_group_grows_with_the_audio_that_waits_and_from_zero(cloud: Cloud, serving: BakeContext) -> None:
    region = serving.config.aws.region
    scaling, cloudwatch = client(cloud, "autoscaling", region), client(cloud, "cloudwatch", region)

    def launched(minutes: int) -> tuple[dict[str, Any], dict[str, Any]]:
        fleet = FleetSection(queue="speech", profile="fleet", wait_minutes=minutes)
        context = replace(serving, config=replace(serving.config, fleet=fleet))
        serve.template(context, told(context))
        serve.group(context, told(context))
        policies = {found["PolicyName"]: found for found in scaling.describe_policies()["ScalingPolicies"]}
        return policies, {found["AlarmName"]: found for found in cloudwatch.describe_alarms()["MetricAlarms"]}

    for _ in range(2):
        policies, alarms = launched(10)
        tracking = policies["newsroom-wait"]["TargetTrackingConfiguration"]
        assert (tracking["DisableScaleIn"], tracking["TargetValue"]) == (True, 600.0)
        metrics = {found["Id"]: found for found in tracking["CustomizedMetricSpecification"]["Metrics"]}
        known = {"waiting": 36_000.0, "speed": 2 * 10.0}  # two machines, of ten seconds a second each
        wait = eval(metrics["wait"]["Expression"], {}, known)
        assert math.ceil(2 * wait / tracking["TargetValue"]) == 6, "an hour of ten is over in ten minutes with six"
        assert {metrics[name]["MetricStat"]["Stat"] for name in known} == {"Average", "Sum"}
        step = policies["newsroom-from-zero"]
        assert [each["ScalingAdjustment"] for each in step["StepAdjustments"]] == [1]
        queues = {"newsroom-from-zero": "speech", "newsroom-from-zero-priority": "speech-priority"}
        mine = {name: alarm for name, alarm in alarms.items() if name in queues}
        for name, queue in queues.items():
            assert mine[name]["AlarmActions"] == [step["PolicyARN"]]
            [looked] = [each["MetricStat"]["Metric"] for each in mine[name]["Metrics"] if each["Id"] == "messages"]
            assert {each["Name"]: each["Value"] for each in looked["Dimensions"]} == {"QueueName": queue}
    policies, alarms = launched(0)
    assert ({"newsroom-wait", "newsroom-from-zero"} & set(policies), set(queues) & set(alarms)) == (set(), set())
    launched(10)
    serve.end(replace(serving, config=replace(serving.config, fleet=FleetSection(queue="speech", profile="fleet"))))
    left = {found["AlarmName"] for found in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert set(queues) & left == set()


def test_a_group_is_waited_for_until_it_has_its_machines(
    cloud: Cloud, serving: BakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose image is the template's: here they exist as records only, and nothing of the launcher starts them."""
    two = replace(serving.config, launch=replace(serving.config.launch, min_size=2))
    context = replace(serving, config=two)
    serve.template(context, told(context))
    with monkeypatch.context() as patched:
        patched.setattr(serve, "RUNNING_SECONDS", 2.0)
        with pytest.raises(BakeError, match="the group newsroom has fewer than 2 machines after 2 s"):
            serve.members(context)
    for _ in range(2):
        serve.one(context)
    assert sorted(serve.members(context)) == sorted(cloud.living())


def test_all_that_was_launched_ends_and_nothing_else(cloud: Cloud, serving: BakeContext) -> None:
    serve.template(serving, told(serving))
    serve.group(serving, told(serving))
    mine = serve.one(serving)
    other = cloud.ec2.run_instances(ImageId=cloud.images()[0]["ImageId"], MinCount=1, MaxCount=1)
    assert serve.end(serving) == [mine]
    assert serve.end(serving) == []
    assert cloud.living() == [other["Instances"][0]["InstanceId"]]
    assert cloud.ec2.describe_launch_templates()["LaunchTemplates"] == []
    assert client(cloud, "elbv2", serving.config.aws.region).describe_target_groups()["TargetGroups"] == []


@pytest.mark.parametrize(
    ("changes", "keys", "words"),
    [
        ({"pillar": {"modle": {}}}, "", "[launch.pillar] has an unknown key 'modle'"),
        ({"pillar": {"model": {"id": "other/model"}}}, "", "model.id is part of the image"),
        ({"pillar": {"host": "0.0.0.0"}}, "", "host 0.0.0.0 is open to others: name [launch] keys_file"),
        ({"keys_file": "none.txt"}, "", "keys_file none.txt: cannot be read"),
        ({"keys_file": KEYS}, "secret-key-in-clear\n", "lines are NAME SHA256"),
        ({"keys_file": KEYS}, "# nobody\n", "holds no key"),
        ({"keys_file": KEYS}, f"{'n' * 40} {'a' * 64}\n" * 200, "EC2 takes 16,384"),
    ],
)
def test_what_cannot_serve_is_refused_before_anything_is_made(
    cloud: Cloud, changes: dict[str, Any], keys: str, words: str
) -> None:
    context = served(cloud, **changes)
    (context.root / KEYS).write_text(keys)
    with pytest.raises(UsageError) as caught:
        template.user_data(told(context))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_published_image_or_keys_nothing_is_launched(cloud: Cloud) -> None:
    context = served(cloud)
    with pytest.raises(UsageError, match="/transcribe/image names no image yet"):
        serve.template(context, told(context))
    with pytest.raises(UsageError, match="keys_file is needed for a group"):
        serve.group(context, told(context))


def test_what_is_launched_says_from_where_it_can_be_reached(cloud: Cloud, serving: BakeContext) -> None:
    setup = told(serving)
    assert "its security group lets nobody in to port 8000" in serve.reachable(serving, setup)
    group = cloud.ec2.create_security_group(GroupName="open", Description="d")["GroupId"]
    launch = replace(serving.config.launch, security_groups=(group,))
    context = replace(serving, config=replace(serving.config, launch=launch))
    assert "lets nobody in" in serve.reachable(context, setup)
    rule = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert serve.reachable(context, setup) == ""
    assert "has no keys" in serve.reachable(context, replace(setup, open=False))


@pytest.mark.parametrize("has_public", [True, False])
def test_a_machine_is_waited_for_and_named_by_every_address_that_it_has(
    cloud: Cloud, serving: BakeContext, monkeypatch: pytest.MonkeyPatch, has_public: bool
) -> None:
    """The launcher reaches only the public address, where there is one."""
    for subnet in cloud.ec2.describe_subnets()["Subnets"]:
        wanted = {"Value": has_public}
        cloud.ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch=wanted)
    serve.template(serving, told(serving))
    instance = serve.one(serving)
    [found] = [i for i in cloud.instances() if i["InstanceId"] == instance]
    private, public = found["PrivateIpAddress"], found.get("PublicIpAddress", "")
    assert bool(public) == has_public
    answers = {f"http://{public or private}:8000{path}": code for path, code in (("/ready", 200), ("/v1/models", 401))}
    monkeypatch.setattr(serve, "_status", lambda url: answers.get(url, 0))
    monkeypatch.setattr(serve, "READY_SECONDS", 2.0)
    monkeypatch.setattr(serve, "reachable", lambda *_: "")
    screen = io.StringIO()
    context = replace(serving, display=Display(Console(file=screen, width=200)))
    images._serves(serving.root, Namespace(cloud="aws", wait=True), context, instance, told(serving))
    inside = f"{instance} serves at http://{private}:8000, from inside its network\n"
    both = f"{instance} serves at http://{public}:8000 (inside its network: http://{private}:8000)\n"
    assert screen.getvalue().endswith(both if has_public else inside)


def test_a_volume_may_be_initialized_at_a_rate(cloud: Cloud, serving: BakeContext) -> None:
    instance = replace(serving.config.instance, initialization_rate=300)
    config = replace(serving.config, instance=instance)
    data = template.template_data(config, told(serving), ["sg-1"], "/dev/sda1")
    assert data["BlockDeviceMappings"] == [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeInitializationRate": 300}}]
    assert "BlockDeviceMappings" not in template.template_data(serving.config, told(serving), ["sg-1"], "/dev/sda1")


@pytest.mark.parametrize(
    ("launch", "instance", "kind", "zones"),
    [((), (), "g4dn.xlarge", "abc"), ((), (), "g5.xlarge", "bc"), ((), "b", "g4dn.xlarge", "b"),
     ("c", "b", "g4dn.xlarge", "c")],
)  # fmt: skip
def test_a_group_is_in_the_configured_zones_that_offer_its_type(
    cloud: Cloud, serving: BakeContext, launch: str, instance: str, kind: str, zones: str
) -> None:
    """As a bake's machines are: the subnets of [launch] before those of [instance]."""
    here = {found["AvailabilityZone"][-1]: found["SubnetId"] for found in cloud.ec2.describe_subnets()["Subnets"]}
    config = serving.config
    wanted = replace(config.launch, instance_type=kind, subnets=tuple(here[zone] for zone in launch))
    config = replace(config, launch=wanted)
    config = replace(config, instance=replace(config.instance, subnets=tuple(here[zone] for zone in instance)))
    context = replace(serving, config=config)
    serve.template(context, told(context))
    serve.group(context, told(context))
    [group] = client(cloud, "autoscaling", config.aws.region).describe_auto_scaling_groups()["AutoScalingGroups"]
    assert sorted(group["VPCZoneIdentifier"].split(",")) == sorted(here[zone] for zone in zones)
    assert {place.subnet for place in serve.places(context)} == {here[zone] for zone in zones}


@pytest.mark.parametrize(("markets", "told_by"), [(("spot",), True), (("spot", "on-demand"), False)])
def test_what_serves_may_be_of_the_spot_market(
    cloud: Cloud, serving: BakeContext, markets: tuple[str, ...], told_by: bool
) -> None:
    """One market is the template's, so that a group has it too; of several the one that has room is."""
    context = replace(serving, config=replace(serving.config, launch=replace(serving.config.launch, markets=markets)))
    data = template.template_data(context.config, told(context), ["sg-1"], "/dev/sda1")
    assert ("InstanceMarketOptions" in data) == told_by
    serve.template(context, told(context))
    instance = serve.one(context)
    [found] = [i for i in cloud.instances() if i["InstanceId"] == instance]
    assert found["InstanceLifecycle"] == "spot"
    assert serve.group(context, told(context))
    [group] = client(cloud, "autoscaling", context.config.aws.region).describe_auto_scaling_groups()[
        "AutoScalingGroups"
    ]
    assert ("LaunchTemplate" in group, "MixedInstancesPolicy" in group) == (told_by, not told_by)


def test_a_group_of_two_markets_has_its_least_machines_on_demand_and_takes_other_markets_later(
    cloud: Cloud, serving: BakeContext
) -> None:
    MotoRegion(serving.config.aws.region)  # a group's machines are of the image that the parameter names
    for markets in (("spot", "on-demand"), ("spot",), ("on-demand", "spot")):
        launch = replace(serving.config.launch, markets=markets, min_size=1)
        context = replace(serving, config=replace(serving.config, launch=launch))
        serve.template(context, told(context))
        serve.group(context, told(context))
        [group] = client(cloud, "autoscaling", context.config.aws.region).describe_auto_scaling_groups()[
            "AutoScalingGroups"
        ]
        found = group.get("MixedInstancesPolicy", {}).get("InstancesDistribution", {})
        assert found.get("OnDemandBaseCapacity") == (1 if len(markets) == 2 else None)
        assert found.get("OnDemandPercentageAboveBaseCapacity") == (0 if len(markets) == 2 else None)
        assert [one.get("InstanceLifecycle") for one in cloud.instances()] == [None]  # moto has but one kind
    assert "1 of its machines are on demand, those beyond are spot" in images._markets(context, "aws")
    assert "all machines of a group on demand" in images._markets(context, "local")


@pytest.mark.parametrize(("gb", "rate", "factor"), [(8, 0, 1.0), (40, 0, 1.0), (100, 0, 2.5), (100, 250, 1.0)])
def test_a_first_start_may_take_as_long_as_its_disk_takes_to_be_fetched(gb: int, rate: int, factor: float) -> None:
    assert volumes.patience(gb, rate) == factor


def test_the_limits_of_a_first_start_follow_the_published_images_disk(
    cloud: Cloud, serving: BakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "USUAL_GB", 4)
    monkeypatch.setattr(serve, "READY_SECONDS", 0.5)
    factor = serve._patience(serving)
    assert factor > 1
    fleet = FleetSection(queue="speech", profile="fleet", wait_minutes=10)
    context = replace(serving, config=replace(serving.config, fleet=fleet))
    serve.template(context, told(context))
    serve.group(context, told(context))
    scaling = client(cloud, "autoscaling", serving.config.aws.region)
    [group] = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["HealthCheckGracePeriod"] == int(1200 * factor)
    warmups = {found["EstimatedInstanceWarmup"] for found in scaling.describe_policies()["ScalingPolicies"]}
    assert warmups == {int(900 * factor)}
    with pytest.raises(BakeError, match=f"was not ready after {0.5 * factor:.0f} s"):
        serve.wait_ready(serving, ["http://127.0.0.1:1"], told(serving))
