"""A whole bake against moto over HTTP, with machines that only signal: what is launched, made, reused."""

import json
from pathlib import Path

import pytest
from baker.aws import requests
from baker.bake.attempt import Recording
from baker.errors import UsageError
from support.fake_cloud import BUCKET, Cloud


def test_a_bake_makes_one_verified_image_and_leaves_no_machine(cloud: Cloud) -> None:
    outcome = cloud.bake()
    [image] = cloud.images()
    tags = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    assert image["ImageId"] == outcome.image.id
    assert tags[requests.TAG_VERIFIED] == "true"
    assert tags[requests.TAG_CONTENT] == outcome.plan.content_hash
    assert tags["project"] == "p"
    assert cloud.living() == []
    assert outcome.baked is not None
    assert outcome.verified is not None
    assert [machine.mode for machine in cloud.fleet.seen.values()] == ["bake", "verify"]
    assert [name for name, _ in cloud.context.display.phases] == [
        "plan", "upload payload", "launch machine", "bake on the machine", "stop machine", "create image",
        "boot the image", "verify on the image", "clean up",
    ]  # fmt: skip


def test_machines_are_launched_closed_and_tagged(cloud: Cloud) -> None:
    cloud.bake()
    for instance in cloud.instances():
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert tags["project"] == "p"
        assert requests.TAG_DEADLINE in tags
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert "KeyName" not in instance
        [group] = cloud.ec2.describe_security_groups(GroupIds=[instance["SecurityGroups"][0]["GroupId"]])[
            "SecurityGroups"
        ]
        assert group["IpPermissions"] == []


@pytest.mark.slow
def test_an_unchanged_tree_reuses_the_image_unless_forced(cloud: Cloud) -> None:
    first = cloud.bake()
    again = cloud.bake()
    assert again.image.id == first.image.id
    assert again.baked is None
    assert len(cloud.fleet.seen) == 2
    forced = cloud.bake(force=True)
    assert forced.image.id != first.image.id


@pytest.mark.slow
def test_a_recording_boots_the_reused_image_and_only_that(cloud: Cloud, tmp_path: Path) -> None:
    first = cloud.bake()
    recording = tmp_path / "talk.WAV"
    recording.write_bytes(b"sound")
    outcome = cloud.bake(recording=Recording(recording, "sv"))
    assert outcome.image.id == first.image.id
    assert outcome.verified is not None
    assert outcome.verified.report["audio"] == {"text": "hello"}
    told = list(cloud.fleet.seen.values())[-1].parameters["audio"]
    assert (told["language"], told["suffix"]) == ("sv", ".wav")
    assert len(cloud.images()) == 1


@pytest.mark.slow
def test_a_changed_input_makes_a_new_image(cloud: Cloud) -> None:
    first = cloud.bake()
    (cloud.context.root / "salt/states/layout.sls").write_text("other: test.nop\n")
    second = cloud.bake()
    assert second.image.id != first.image.id
    assert second.plan.changed == ["states"]
    assert "salt/states/layout.sls" in second.plan.changed_files
    assert "salt/pillar/launch.sls" not in second.plan.changed_files  # not in the fake manifest, but the same input
    keys = [o["Key"] for o in cloud.s3.list_objects_v2(Bucket=BUCKET)["Contents"] if second.bake in o["Key"]]
    assert f"transcribe-bake/manifests/{second.bake}/sbom.cdx.json" in keys


@pytest.mark.slow
def test_the_client_token_is_in_the_bucket_before_it_is_used(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    run, tokens = cloud.context.machines.run, []

    def watched(request: requests.Request) -> str:
        bake = next(t["Value"] for t in request["TagSpecifications"][0]["Tags"] if t["Key"] == requests.TAG_BAKE)
        listed = cloud.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"transcribe-bake/builds/{bake}")["Contents"]
        states = [json.load(cloud.s3.get_object(Bucket=BUCKET, Key=o["Key"])["Body"]) for o in listed
                  if o["Key"].endswith("/state.json")]  # fmt: skip
        tokens.append(request["ClientToken"])
        assert request["ClientToken"] in [state["request"]["ClientToken"] for state in states]
        return run(request)

    monkeypatch.setattr(cloud.context.machines, "run", watched)
    cloud.bake()
    assert len(set(tokens)) == 2


def test_a_group_that_lets_somebody_in_is_refused(cloud: Cloud) -> None:
    vpc = cloud.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = cloud.ec2.create_security_group(GroupName="transcribe-bake", Description="d", VpcId=vpc)["GroupId"]
    cloud.ec2.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0"
    )
    with pytest.raises(UsageError, match="lets connections in"):
        cloud.bake()
    cloud.assert_nothing_left()
