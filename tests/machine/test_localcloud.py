"""The local cloud with real machines, in a state folder of its own beside the project's."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from localcloud import Endpoint, LocalCloud, LocalCloudError
from localcloud.client import folders_of
from localcloud.endpoint import Secret
from localcloud.machines import supervisor
from support.own_cloud import share
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
    """A folder with a local cloud, and its client."""

    def __init__(self, root: Path) -> None:
        self.root = root
        share(root)
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


def test_a_machines_root_is_nobody_on_this_host(site: OwnCloud, instance: str) -> None:
    """A set-uid shell that it leaves on its disk or in a folder of this host gives no rights here."""
    shells = ("/root/shell", "/run/local-cloud/pip-cache/shell", "/var/cache/apt/archives/shell.deb")
    for shell in shells:
        site.output(instance, "install", "--mode=4755", "/bin/bash", shell)
    machine = folders_of(site.root).machines / instance
    kept = folders_of(site.root).apt_archives / "shell.deb"
    until(kept.exists)
    assert kept.stat().st_mode & 0o7111 == 0
    for path in (machine / "upper/root/shell", folders_of(site.root).pip_cache / "shell", machine / "apt/shell.deb"):
        facts = path.stat()
        assert facts.st_mode & 0o4000
        assert facts.st_uid == supervisor.USERS
    kept.unlink()
    for shell in shells:
        site.output(instance, "rm", shell)


def test_a_machine_cannot_change_this_hosts_kernel(site: OwnCloud, instance: str) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    for attempt in (
        f"mount -o remount,rw /proc/sys; echo '|/root/evil' >{pattern}",
        f"mount -t proc proc /mnt && echo '|/root/evil' >/mnt{str(pattern).removeprefix('/proc')}",
        "mknod /root/disk b 254 0",
        "ip link set tap0 down",
        "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
    ):
        assert LocalCloud.run(site.root, instance, ["sh", "-c", f"({attempt}) 2>/dev/null"]) != 0, attempt
    assert pattern.read_text() == before


def test_a_machine_reaches_its_doors_and_nothing_else_of_this_hosts_loopback(site: OwnCloud, instance: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        port = mine.getsockname()[1]
        for address in ("10.0.2.2", "10.0.2.4", "127.0.0.1", "0.0.0.0", "255.255.255.255"):
            connect = f"import socket; socket.create_connection(('{address}', {port}), 5)"
            assert LocalCloud.run(site.root, instance, ["python3", "-c", connect]) != 0, address
        mine.settimeout(0)
        with pytest.raises(BlockingIOError):
            mine.accept()
    assert LocalCloud.run(site.root, instance, ["ip", "route", "get", "169.254.169.254"]) != 0
    hub = f"{site.endpoint.machine_hub_url}/api/models/{site.endpoint.model_id}"
    assert json.loads(site.output(instance, "curl", "--silent", "--fail", hub))["id"] == site.endpoint.model_id
    control = f"{site.endpoint.machine_url}/_cloud/stop"
    assert "403" in site.output(
        instance, "curl", "--silent", "--request", "POST", "--write-out", "%{http_code}", control
    )


def test_another_user_of_this_host_gets_nothing(site: OwnCloud, instance: str) -> None:
    """Neither the disks and the secret, nor an answer: not without a signature, and not with one of any other key."""
    folders = folders_of(site.root)
    script = """
import encodings.idna, os, sys, urllib.request, urllib.error  # all now: it may not read this Python's folder later
os.setgroups([]); os.setgid(65534); os.setuid(65534)
url, machine, *paths = sys.argv[1:]
for path in paths:
    try:
        os.stat(path)
        sys.exit(f"{path} is there to see")
    except PermissionError:
        pass
scope = "Credential=local/20261126/eu-north-1/ec2/aws4_request"
signed = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=" + "0" * 64}
form = f"Action=TerminateInstances&Version=2016-11-15&InstanceId.1={machine}".encode()
for path, headers in (("/", signed), ("/_cloud/stop", {}), (f"/_cloud/machines/{machine}", signed)):
    try:
        urllib.request.urlopen(urllib.request.Request(url + path, form, headers))
        sys.exit(f"{path} was answered")
    except urllib.error.HTTPError as error:
        assert error.code == 403, error
"""
    private = (folders.secret, folders.endpoint, folders.images, folders.machines / instance / "upper", folders.layers)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as open_to_all:
        Path(open_to_all).chmod(0o755)
        state = Path(open_to_all) / "state"  # the state folder's own mode, not that of a test's folder around it
        state.mkdir()
        subprocess.run(["mount", "--bind", folders.state, state], check=True)
        try:
            seen = [str(state / path.relative_to(folders.state)) for path in private]
            command = [sys.executable, "-c", script, site.endpoint.api_url, instance, *seen]
            assert subprocess.run(command, check=False).returncode == 0
        finally:
            subprocess.run(["umount", state], check=True)
    assert site.state(instance) == "running"


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
