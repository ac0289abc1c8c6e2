"""The local cloud with real machines, in a state folder of its own beside the project's."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from localcloud import Endpoint, LocalCloud, LocalCloudError, host
from localcloud.client import folders_of
from localcloud.common import PROJECT, say_on_stderr
from localcloud.endpoint import Secret
from localcloud.machines import base_image
from support.waiting import until

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="machines need root"),
]
USER_DATA = """\
#cloud-config
runcmd:
  - [sh, -xc, "echo from-inside | curl -sS --fail -T - '{url}'"]
  - [sh, -xc, "echo MARKER > /dev/console; touch /root/was-here"]
"""


class OwnCloud:
    """A folder like the project's, whose local cloud shares the project's source image and model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        mine, project = folders_of(root), folders_of(PROJECT)
        host.prepare(say_on_stderr)
        mine.roots.mkdir(parents=True)
        base_image.folder(mine).symlink_to(base_image.ensure(project, say_on_stderr))
        (project.cache / "models").mkdir(exist_ok=True)
        (mine.cache / "models").symlink_to(project.cache / "models")
        self.start()

    def start(self) -> None:
        self.endpoint: Endpoint = LocalCloud.ensure(self.root)
        self.ec2 = self.client("ec2", self.endpoint.api_url)

    def client(self, service: str, url: str) -> Any:
        keys = (self.endpoint.access_key_id, self.endpoint.secret_access_key)
        session = boto3.Session(*keys, region_name=self.endpoint.region)
        return session.client(service, endpoint_url=url)  # type: ignore[call-overload]

    def launch(self, user_data: str, image: str = "") -> str:
        answer = self.ec2.run_instances(
            ImageId=image or self.endpoint.source_ami,
            InstanceType="g4dn.xlarge",
            MinCount=1,
            MaxCount=1,
            UserData=user_data,
            InstanceInitiatedShutdownBehavior="terminate",
        )
        return str(answer["Instances"][0]["InstanceId"])

    def state(self, instance_id: str) -> str:
        [reservation] = self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return str(reservation["Instances"][0]["State"]["Name"])

    def output(self, instance_id: str, *argv: str) -> str:
        command = LocalCloud.command(self.root, instance_id, argv)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module", name="site")
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCloud]:
    site = OwnCloud(tmp_path_factory.mktemp("site"))
    yield site
    LocalCloud.stop(site.root)


@pytest.fixture(scope="module", name="instance")
def booted_instance(site: OwnCloud) -> str:
    """A machine that has run its user-data."""
    s3 = site.client("s3", site.endpoint.machine_url)
    url = s3.generate_presigned_url("put_object", Params={"Bucket": site.endpoint.bucket, "Key": "said"})
    instance_id = site.launch(USER_DATA.format(url=url))
    assert LocalCloud.wait_booted(site.root, instance_id) == "running", "a unit of the source image fails"
    return instance_id


@pytest.fixture(scope="module", name="image")
def made_image(site: OwnCloud, instance: str) -> str:
    return str(site.ec2.create_image(InstanceId=instance, Name="made")["ImageId"])


def test_a_machine_runs_its_user_data_and_reaches_the_bucket(site: OwnCloud, instance: str) -> None:
    s3 = site.client("s3", site.endpoint.api_url)
    assert s3.get_object(Bucket=site.endpoint.bucket, Key="said")["Body"].read() == b"from-inside\n"
    assert "MARKER" in site.ec2.get_console_output(InstanceId=instance)["Output"]


def test_a_command_runs_inside_and_its_exit_code_comes_out(site: OwnCloud, instance: str) -> None:
    assert site.output(instance, "hostname") == instance
    assert LocalCloud.run(site.root, instance, ["sh", "-c", "exit 7"]) == 7


def test_pip_and_apt_in_a_machine_ask_where_this_host_does(site: OwnCloud, instance: str) -> None:
    python = ["python3", "-m", "venv", "/tmp/venv"]
    assert site.output(instance, *python) == ""
    settings = site.output(instance, "/tmp/venv/bin/pip", "config", "list")
    assert "global.cache-dir='/run/local-cloud/pip-cache'" in settings
    assert site.output(instance, "findmnt", "--noheadings", "--output", "TARGET", "/var/cache/apt/archives")


def test_a_port_on_a_machines_loopback_is_reached_from_this_host(site: OwnCloud, instance: str) -> None:
    serve = ["systemd-run", "--quiet", "python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/etc"]
    site.output(instance, *serve, "8123")
    inside = "import socket; socket.create_connection(('127.0.0.1', 8123))"
    until(lambda: LocalCloud.run(site.root, instance, ["python3", "-c", inside]) == 0, 60)
    with urllib.request.urlopen(LocalCloud.url_of(site.root, instance, 8123) + "/hostname", timeout=10) as answer:
        assert answer.read().decode().strip() == instance


def test_an_image_is_the_machines_disk_without_what_this_host_lent(site: OwnCloud, image: str) -> None:
    empty = 'test ! -s /etc/pip.conf && test ! -s /etc/resolv.conf && test -z "$(ls -A /opt)"'
    look = f"test -e /root/was-here && {empty}"
    assert LocalCloud.shell(site.root, image, ["sh", "-c", look], boot=False) == 0
    assert LocalCloud.shell(site.root, image, ["sh", "-c", "exit 4"], boot=False) == 4


def test_an_image_boots_without_cloud_init_for_a_command(site: OwnCloud, image: str) -> None:
    look = "test -e /root/was-here && cloud-init status | grep -q disabled && exit 5"
    assert LocalCloud.shell(site.root, image, ["sh", "-c", look]) == 5


def test_an_image_of_a_machine_that_runs_on_is_its_disk_at_that_moment(site: OwnCloud, instance: str) -> None:
    """As of a spot machine, which cannot be stopped; the machine stands still only while its disk is copied."""
    init = LocalCloud.leader(site.root, instance)
    site.output(instance, "sh", "-c", "echo before >/root/when; ln /root/when /root/same; rm /etc/motd")
    image = str(site.ec2.create_image(InstanceId=instance, Name="live", NoReboot=True)["ImageId"])
    site.output(instance, "sh", "-c", "echo after >/root/when")
    assert LocalCloud.leader(site.root, instance) == init
    looks = "cat /root/when /root/same; test /root/when -ef /root/same; test ! -e /etc/motd"
    with LocalCloud.machine(site.root, image) as copy:
        assert site.output(copy, "sh", "-ec", looks).split() == ["before", "before"]
    site.ec2.deregister_image(ImageId=image)


def test_the_imaged_machine_runs_on(site: OwnCloud, instance: str, image: str) -> None:
    assert site.state(instance) == "running"
    assert LocalCloud.wait_booted(site.root, instance) == "running"
    site.output(instance, "test", "-e", "/root/was-here")


def test_a_reboot_keeps_the_disk(site: OwnCloud, instance: str) -> None:
    LocalCloud.wait_booted(site.root, instance)
    before = site.output(instance, "cat", "/proc/sys/kernel/random/boot_id"), LocalCloud.leader(site.root, instance)
    site.output(instance, "touch", "/root/kept")
    site.ec2.reboot_instances(InstanceIds=[instance])
    until(lambda: _leader(site, instance) not in (None, before[1]), 60)
    LocalCloud.wait_booted(site.root, instance)
    site.output(instance, "test", "-e", "/root/kept")
    assert site.state(instance) == "running"


def _leader(site: OwnCloud, instance: str) -> int | None:
    try:
        return LocalCloud.leader(site.root, instance, seconds=0)
    except LocalCloudError:
        return None


def test_a_power_off_from_inside_terminates_the_instance(site: OwnCloud) -> None:
    instance_id = site.launch("#cloud-config\nruncmd: [[systemctl, --no-block, poweroff]]\n")
    until(lambda: site.state(instance_id) == "terminated", 60)
    assert "Power" in site.ec2.get_console_output(InstanceId=instance_id)["Output"]
    folder = folders_of(site.root).machines / instance_id
    until(lambda: not any(path.is_dir() for path in folder.iterdir()))  # the disk is deleted


def test_nothing_is_left_when_the_local_cloud_is_killed(site: OwnCloud, image: str) -> None:
    instance_id = site.launch("#cloud-config\n{}\n")
    LocalCloud.wait_booted(site.root, instance_id)
    token = Secret(json.loads(folders_of(site.root).secret.read_text())).control_token
    asked = urllib.request.Request(
        f"{site.endpoint.api_url}/_cloud/health", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        os.kill(json.load(answer)["pid"], 9)
    until(lambda: _processes(instance_id) == [], seconds=10)
    assert "local-cloud" not in Path("/proc/self/mounts").read_text()
    site.start()
    assert list(folders_of(site.root).machines.iterdir()) == []
    assert list(Path("/sys/fs/cgroup").glob(f"**/local-cloud-{instance_id}")) == []
    [kept] = site.ec2.describe_images(Owners=["self"])["Images"]
    assert kept["ImageId"] == image


def _processes(word: str) -> list[str]:
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return [command.decode(errors="replace") for command in commands if word.encode() in command]
