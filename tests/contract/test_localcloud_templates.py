"""Launch templates and Auto Scaling groups start machines of the local cloud, as RunInstances does."""

import base64
from typing import Any

import pytest
from localcloud.machines import base_image
from support.running_cloud import RunningCloud, refused, state

DATA = {
    "ImageId": "resolve:ssm:/t/image",
    "InstanceType": "g4dn.xlarge",
    "UserData": base64.b64encode("#cloud-config\n# ä\n".encode()).decode(),
    "InstanceInitiatedShutdownBehavior": "terminate",
    "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
    "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "serve"}]}],
}


@pytest.fixture(name="template")
def made_template(running: RunningCloud) -> str:
    """A template whose second version, the default, is DATA; its image is named by a parameter."""
    ssm = running.client("ssm")
    ssm.put_parameter(Name="/t/image", Value=base_image.source_ami(), Type="String", DataType="aws:ec2:image")
    own = [{"ResourceType": "launch-template", "Tags": [{"Key": "k", "Value": "v"}]}]
    first = {"ImageId": "ami-0", "InstanceType": "m5.large"}
    running.ec2.create_launch_template(LaunchTemplateName="serve", LaunchTemplateData=first, TagSpecifications=own)
    running.ec2.create_launch_template_version(LaunchTemplateName="serve", LaunchTemplateData=DATA)
    running.ec2.modify_launch_template(LaunchTemplateName="serve", DefaultVersion="2")
    return "serve"


def described(running: RunningCloud, instance_id: str) -> Any:
    [reservation] = running.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    return reservation["Instances"][0]


def test_an_instance_is_what_its_template_says(running: RunningCloud, template: str) -> None:
    asked = {"LaunchTemplateName": template, "Version": "$Default"}
    answer = running.ec2.run_instances(LaunchTemplate=asked, MinCount=1, MaxCount=1, ClientToken="t")
    instance = described(running, answer["Instances"][0]["InstanceId"])
    assert (instance["ImageId"], instance["InstanceType"]) == (base_image.source_ami(), "g4dn.xlarge")
    assert instance["Tags"] == [{"Key": "role", "Value": "serve"}]
    assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    seed = running.folders.machines / instance["InstanceId"] / "seed/user-data"
    assert seed.read_text() == "#cloud-config\n# ä\n"
    again = running.ec2.run_instances(LaunchTemplate=asked, MinCount=1, MaxCount=1, ClientToken="t")
    assert again["Instances"][0]["InstanceId"] == instance["InstanceId"]


def test_what_the_request_says_wins(running: RunningCloud, template: str) -> None:
    asked = {"LaunchTemplateName": template, "Version": "1"}
    answer = running.ec2.run_instances(
        LaunchTemplate=asked, MinCount=1, MaxCount=1, ImageId=base_image.source_ami(), InstanceType="g5.xlarge"
    )
    assert described(running, answer["Instances"][0]["InstanceId"])["InstanceType"] == "g5.xlarge"
    launch = {"LaunchTemplateName": "nothing", "Version": "1"}
    run = running.ec2.run_instances
    assert refused(run, LaunchTemplate=launch, MinCount=1, MaxCount=1) == "InvalidLaunchTemplateId.NotFound"


def test_a_group_boots_replaces_and_ends_its_machines(running: RunningCloud, template: str) -> None:
    groups = running.client("autoscaling")
    zones = {"AvailabilityZones": ["eu-north-1a"], "LaunchTemplate": {"LaunchTemplateName": template}}
    groups.create_auto_scaling_group(AutoScalingGroupName="g", MinSize=1, MaxSize=2, DesiredCapacity=1, **zones)
    [first] = running.cloud.machines.running()
    assert (running.folders.machines / first / "seed/user-data").read_text() == "#cloud-config\n# ä\n"
    running.ec2.terminate_instances(InstanceIds=[first])
    [second] = running.cloud.machines.running()
    assert second != first
    groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=2)
    assert len(running.cloud.machines.running()) == 2
    groups.delete_auto_scaling_group(AutoScalingGroupName="g", ForceDelete=True)
    assert running.cloud.machines.running() == []
    assert state(running.ec2, second) == "terminated"
