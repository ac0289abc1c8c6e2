"""The local cloud's EC2 API through boto3; a process that waits to be told to power off stands for each machine."""

import json
import os
from pathlib import Path

import pytest
from localcloud.aws.moto_instances import SOURCE_OWNER
from localcloud.common import Folders
from localcloud.endpoint import BUCKET
from localcloud.machines import base_image, host_mounts, machines
from localcloud.machines.disk_images import DiskImages
from support.running_cloud import RunningCloud, launch, refused, state, stopped
from support.waiting import until

FAILS = ["sh", "-c", "exit 1"]


def test_the_source_image_is_found_by_owner_and_name(running: RunningCloud) -> None:
    names = [{"Name": "name", "Values": ["debian-12-amd64-*"]}]
    [image] = running.ec2.describe_images(Owners=[SOURCE_OWNER], Filters=names)["Images"]
    assert (image["ImageId"], image["RootDeviceName"]) == (base_image.source_ami(), "/dev/xvda")


def test_the_same_client_token_gives_the_same_instance(running: RunningCloud) -> None:
    first = launch(running.ec2, ClientToken="t")
    assert launch(running.ec2, ClientToken="t") == first
    assert launch(running.ec2, ClientToken="u") != first
    assert len(running.cloud.machines.running()) == 2


def test_a_client_token_is_refused_for_other_parameters_and_after_the_end(running: RunningCloud) -> None:
    instance_id = launch(running.ec2, ClientToken="t")
    changed = {"ClientToken": "t", "UserData": "#!/bin/sh\n"}
    assert refused(lambda: launch(running.ec2, **changed)) == "IdempotentParameterMismatch"
    running.ec2.terminate_instances(InstanceIds=[instance_id])
    assert refused(lambda: launch(running.ec2, ClientToken="t")) == "IdempotentInstanceTerminated"


def test_the_machine_is_given_the_very_user_data(running: RunningCloud) -> None:
    text = "#cloud-config\n# räksmörgås\n"
    instance_id = launch(running.ec2, UserData=text)
    assert (running.folders.machines / instance_id / "seed" / "user-data").read_text() == text
    assert refused(lambda: launch(running.ec2, UserData="x" * 16_385)) == "InvalidParameterValue"


def test_an_unknown_image_launches_nothing(running: RunningCloud) -> None:
    assert refused(lambda: launch(running.ec2, ImageId="ami-0123456789abcdef0")) == "InvalidAMIID.NotFound"
    assert running.cloud.machines.running() == []


def test_without_root_nothing_is_launched(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refused(lambda: launch(running.ec2)) == "UnauthorizedOperation"


def test_a_dry_run_needs_no_root_and_launches_nothing(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refused(lambda: launch(running.ec2, DryRun=True)) == "DryRunOperation"
    assert running.cloud.machines.running() == []


@pytest.mark.parametrize(("behaviour", "end"), [("terminate", "terminated"), ("stop", "stopped")])
def test_a_power_off_from_inside_ends_the_instance_as_it_was_launched(
    running: RunningCloud, behaviour: str, end: str
) -> None:
    instance_id = launch(running.ec2, InstanceInitiatedShutdownBehavior=behaviour)
    running.cloud.machines.get(instance_id).send("poweroff")
    until(lambda: state(running.ec2, instance_id) == end)
    [reservation] = running.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    assert reservation["Instances"][0]["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_machine_that_fails_is_terminated_whatever_was_asked(
    running: RunningCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "supervisor_command", lambda spec: FAILS)
    instance_id = launch(running.ec2, InstanceInitiatedShutdownBehavior="stop")
    until(lambda: state(running.ec2, instance_id) == "terminated")


def test_a_stopped_instance_starts_on_its_own_disk(running: RunningCloud) -> None:
    instance_id = stopped(running.ec2, InstanceInitiatedShutdownBehavior="terminate")
    (running.folders.machines / instance_id / "upper" / "kept").touch()
    running.ec2.start_instances(InstanceIds=[instance_id])
    assert state(running.ec2, instance_id) == "running"
    assert running.cloud.machines.running() == [instance_id]
    assert (running.folders.machines / instance_id / "upper" / "kept").exists()


def test_the_console_is_the_machines_last_64_kib_also_after_its_end(running: RunningCloud) -> None:
    instance_id = launch(running.ec2)
    console = running.folders.machines / instance_id / "console.log"
    console.write_text("begin\n" + "x" * 70_000 + "\nTHE END <&>\n")
    running.ec2.terminate_instances(InstanceIds=[instance_id])
    output = running.ec2.get_console_output(InstanceId=instance_id)["Output"]
    assert output.endswith("x\nTHE END <&>\n")
    assert len(output) == 65_536


def test_an_image_is_what_the_machine_wrote_and_its_name_is_unique(running: RunningCloud) -> None:
    instance_id = stopped(running.ec2)
    (running.folders.machines / instance_id / "upper" / "written").write_text("by the machine")
    tags = [{"ResourceType": kind, "Tags": [{"Key": "k", "Value": kind}]} for kind in ("image", "snapshot")]
    image_id = running.ec2.create_image(InstanceId=instance_id, Name="one", TagSpecifications=tags)["ImageId"]
    [image] = running.ec2.describe_images(ImageIds=[image_id])["Images"]
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    [snapshot] = running.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert (image["Tags"], snapshot["Tags"]) == (tags[0]["Tags"], tags[1]["Tags"])
    top = running.cloud.images.disk(running.cloud.images.get(image_id))[0]
    assert (top / "written").read_text() == "by the machine"
    assert refused(running.ec2.create_image, InstanceId=instance_id, Name="one") == "InvalidAMIName.Duplicate"


def test_a_running_machine_is_imaged_by_rebooting_it(running: RunningCloud) -> None:
    instance_id = launch(running.ec2, InstanceInitiatedShutdownBehavior="terminate")
    running.ec2.create_image(InstanceId=instance_id, Name="one")
    assert (state(running.ec2, instance_id), running.cloud.machines.running()) == ("running", [instance_id])


def test_an_image_without_a_reboot_has_what_the_machine_had_written_until_then(running: RunningCloud) -> None:
    instance_id = launch(running.ec2)
    process = running.cloud.machines.get(instance_id).process
    written = running.folders.machines / instance_id / "upper" / "written"
    written.write_text("before")
    image_id = running.ec2.create_image(InstanceId=instance_id, Name="one", NoReboot=True)["ImageId"]
    written.write_text("after")
    top = running.cloud.images.disk(running.cloud.images.get(image_id))[0]
    assert (top / "written").read_text() == "before"
    assert running.cloud.machines.get(instance_id).process is process
    assert state(running.ec2, instance_id) == "running"


def test_a_link_on_a_machines_disk_leads_to_no_file_of_this_host(running: RunningCloud, tmp_path: Path) -> None:
    """Root of this host removes its mount points from the disk, which the machine's root has written."""
    instance_id = launch(running.ec2)
    here = tmp_path / "etc"
    here.mkdir()
    (here / "resolv.conf").touch()
    (running.folders.machines / instance_id / "upper" / "etc").symlink_to(here)
    running.ec2.create_image(InstanceId=instance_id, Name="one")
    assert (here / "resolv.conf").exists()


def test_an_image_whose_disk_is_of_this_hosts_root_is_not_used_again(folders: Folders) -> None:
    """Machines had no user namespace when it was made: its files would be nobody's."""
    for root in ("0123", base_image.folder(folders).name):
        (folders.roots / root).mkdir(exist_ok=True)
    entries = [
        {"id": f"ami-{number}", "root": path.name} for number, path in enumerate(sorted(folders.roots.iterdir()))
    ]
    folders.images.write_text(json.dumps([{**entry, "layers": [], "facts": {}} for entry in entries]))
    [kept] = DiskImages(folders).all()
    assert kept.root == base_image.folder(folders).name


def test_a_machine_that_is_taken_away_says_so(running: RunningCloud) -> None:
    market = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
    instance_id = launch(running.ec2, InstanceMarketOptions=market)
    assert running.ask("POST", f"machines/{instance_id}/interrupt-spot").ok
    [reservation] = running.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    told = reservation["Instances"][0]
    assert (told["State"]["Name"], told["InstanceLifecycle"]) == ("terminated", "spot")
    assert told["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert running.cloud.machines.running() == []


def test_what_is_terminated_cannot_be_stopped(running: RunningCloud) -> None:
    instance_id = launch(running.ec2)
    running.ec2.terminate_instances(InstanceIds=[instance_id])
    assert refused(running.ec2.stop_instances, InstanceIds=[instance_id]) == "IncorrectInstanceState"
    assert state(running.ec2, instance_id) == "terminated"


def test_what_the_host_lends_leaves_no_mount_point_in_an_image(
    running: RunningCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lent = tmp_path / "mirror" / "wheels"
    lent.mkdir(parents=True)
    monkeypatch.setattr(host_mounts, "host_pip", lambda: {"find-links": str(lent)})
    instance_id = launch(running.ec2)
    upper = running.folders.machines / instance_id / "upper"
    (upper / str(lent).lstrip("/")).mkdir(parents=True)  # as systemd-nspawn does
    (upper / "etc").mkdir()
    (upper / "etc" / "pip.conf").touch()
    (upper / "etc" / "hostname").write_text("mine")
    running.ec2.stop_instances(InstanceIds=[instance_id])
    until(lambda: state(running.ec2, instance_id) == "stopped")
    image_id = running.ec2.create_image(InstanceId=instance_id, Name="one")["ImageId"]
    top = running.cloud.images.disk(running.cloud.images.get(image_id))[0]
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["etc", "etc/hostname"]


def test_deregistering_frees_the_layers_that_nothing_stands_on(running: RunningCloud) -> None:
    first = running.ec2.create_image(InstanceId=stopped(running.ec2), Name="one")["ImageId"]
    second = running.ec2.create_image(InstanceId=stopped(running.ec2, ImageId=first), Name="two")["ImageId"]
    below = set(running.cloud.images.disk(running.cloud.images.get(first)))
    for instance_id in running.cloud.machines._machines:
        running.ec2.terminate_instances(InstanceIds=[instance_id])
    running.ec2.deregister_image(ImageId=first)
    assert all(path.is_dir() for path in below), "the second image stands on them"
    running.ec2.deregister_image(ImageId=second)
    assert list(running.folders.layers.iterdir()) == []
    assert base_image.folder(running.folders).is_dir()


def test_the_roots_of_all_bases_stay_and_each_can_be_launched(running: RunningCloud) -> None:
    for name in (*base_image.BASES, "old"):
        root = base_image.folder(running.folders, name) if name != "old" else running.folders.roots / "owned-old"
        root.mkdir(exist_ok=True)
    for name in base_image.BASES:
        launch(running.ec2, ImageId=base_image.source_ami(name))
    running.cloud.images.collect(())
    left = {path.name for path in running.folders.roots.iterdir()}
    assert left == {base_image.folder(running.folders, name).name for name in base_image.BASES}


@pytest.mark.slow
def test_images_and_their_tags_outlive_the_local_cloud(folders: Folders) -> None:
    first = RunningCloud(folders)
    image_id = first.ec2.create_image(InstanceId=stopped(first.ec2), Name="one")["ImageId"]
    first.ec2.create_tags(Resources=[image_id], Tags=[{"Key": "verified", "Value": "true"}])
    [before] = first.ec2.describe_images(Owners=["self"])["Images"]
    first.close()
    second = RunningCloud(folders)
    [after] = second.ec2.describe_images(Owners=["self"])["Images"]
    kept = ("ImageId", "Name", "Tags", "CreationDate", "BlockDeviceMappings")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert launch(second.ec2, ImageId=image_id)
    second.close()


def test_a_large_object_is_put_and_got_whole(running: RunningCloud) -> None:
    s3, data = running.client("s3"), os.urandom(1_000_000) * 30
    s3.put_object(Bucket=BUCKET, Key="payload", Body=data)
    assert s3.get_object(Bucket=BUCKET, Key="payload")["Body"].read() == data
