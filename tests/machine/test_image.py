"""The image itself: what its disk holds, and that a new instance of it is an instance like any other."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from localcloud import LocalCloud
from support.baked_machine import DISK, ROOT, BakedMachine, ec2

USER_DATA = """#cloud-config
ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAKEDMACHINETESTKEY person@example.com]
write_files: [{path: /run/first-boot, content: hello}]
"""


@contextlib.contextmanager
def instance(image: str, user_data: str) -> Iterator[BakedMachine]:
    """An instance as a customer starts it, with user-data of its own."""
    cloud = ec2()
    kind = {"InstanceType": "g4dn.xlarge", "MinCount": 1, "MaxCount": 1}
    answer = cloud.run_instances(ImageId=image, UserData=user_data, **kind)
    identity = answer["Instances"][0]["InstanceId"]
    try:
        yield BakedMachine(identity)
    finally:
        cloud.terminate_instances(InstanceIds=[identity])


@pytest.fixture(scope="module")
def booted(image: str) -> Iterator[BakedMachine]:
    with instance(image, USER_DATA) as machine:
        LocalCloud.wait_booted(ROOT, machine.id, seconds=300)
        yield machine


def test_disk_holds_nothing_of_the_bake(image: str, capfd: pytest.CaptureFixture[str]) -> None:
    LocalCloud.shell(ROOT, image, ["bash", "-c", DISK], boot=False)
    lines = capfd.readouterr().out.splitlines()
    report = json.loads((ROOT / "bake-report.json").read_text())
    assert lines == ["machine-id 0", f"payload {report['payload']['sha256']}"]


def test_new_instance_runs_cloud_init_with_its_own_user_data(booted: BakedMachine) -> None:
    assert booted.run("cat", "/run/first-boot").stdout == "hello"
    status = json.loads(booted.run("cloud-init", "status", "--format=json", check=False).stdout)
    assert status["status"] == "done"
    assert not status.get("errors")


def test_new_instance_has_keys_and_an_identity_of_its_own(booted: BakedMachine, shared: BakedMachine) -> None:
    assert booted.sh("ls /etc/ssh/ssh_host_ed25519_key")
    assert "BAKEDMACHINETESTKEY" in booted.sh(
        "cat /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys 2>/dev/null; true"
    )
    assert booted.property("ssh", "ActiveState") == "active"
    assert len(booted.run("cat", "/etc/machine-id").stdout.strip()) == 32
    assert booted.run("cat", "/etc/machine-id").stdout != shared.run("cat", "/etc/machine-id").stdout


def test_new_instance_serves_by_itself(booted: BakedMachine) -> None:
    booted.wait_serving()
    assert "Dashwood" in booted.transcribe(Path(ROOT / "service/clips/verify.flac"))
    assert booted.sh("systemctl list-units --failed --plain --no-legend").strip() == ""


def test_new_instance_has_nothing_to_apply(booted: BakedMachine) -> None:
    booted.wait_serving()
    applied = booted.apply()
    assert (applied.changed, applied.failed) == (set(), {})


def test_new_instance_has_no_deadline(booted: BakedMachine) -> None:
    assert "transcribe-deadline" not in booted.sh("systemctl list-timers --all --plain --no-legend")
    assert booted.run("test", "-e", "/run/transcribe-bake", check=False).returncode == 1
