"""The local cloud's process: who keeps it alive, when it ends, and what it leaves."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from localcloud import daemon as daemons
from localcloud.client import LocalCloud, folders_of
from localcloud.common import Folders, LocalCloudError
from localcloud.daemon import Daemon
from localcloud.endpoint import Secret
from localcloud.machines import base_image
from support.running_cloud import forget_everything, launch, stopped
from support.waiting import until

TOOLS = Path(daemons.__file__).resolve().parents[1]
SERVE = """
import sys
from pathlib import Path
from typing import Any
from localcloud import daemon
from localcloud.common import Folders
daemon.QUIET_SECONDS, daemon.TICK_SECONDS = float(sys.argv[2]), 0.05
daemon.main(Folders.of(Path(sys.argv[1])))
"""


@pytest.fixture(name="daemon")
def made_daemon(folders: Folders) -> Iterator[Daemon]:
    """One in this process, to which nobody has spoken for a quarter of an hour."""
    forget_everything()
    folders.make_state()
    made = Daemon(folders)
    made.activity.last -= 900
    yield made
    made.close()


def quiet(daemon: Daemon, seconds: float = 900) -> bool:
    """Whether it ends when this long has passed since the last request."""
    daemon.activity.touch()
    daemon.activity.last -= seconds
    return daemon.unused()


def test_without_machines_and_users_it_ends_after_two_minutes(daemon: Daemon) -> None:
    assert not quiet(daemon, 100)
    assert quiet(daemon, 130)


def test_it_acts_by_itself_and_stays_longer_while_there_is_a_group(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "TICK_SECONDS", 0.05)
    end = daemon.endpoint
    session = boto3.Session(end.access_key_id, end.secret_access_key, region_name=end.region)
    data: Any = {"ImageId": base_image.source_ami(), "InstanceType": "g4dn.xlarge"}
    session.client("ec2", endpoint_url=end.api_url).create_launch_template(
        LaunchTemplateName="one", LaunchTemplateData=data
    )
    groups: Any = session.client("autoscaling", endpoint_url=end.api_url)
    where = {"AvailabilityZones": ["eu-north-1a"], "LaunchTemplate": {"LaunchTemplateName": "one"}}
    groups.create_auto_scaling_group(AutoScalingGroupName="g", MinSize=0, MaxSize=1, DesiredCapacity=1, **where)
    [sick] = daemon.cloud.machines.running()
    groups.set_instance_health(InstanceId=sick, HealthStatus="Unhealthy")
    serving = threading.Thread(target=daemon.serve)
    serving.start()
    until(lambda: daemon.cloud.machines.running() not in ([], [sick]))
    daemon.end()
    serving.join()
    groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=0)
    assert daemon.cloud.machines.running() == []
    assert not quiet(daemon, 130)
    groups.delete_auto_scaling_group(AutoScalingGroupName="g")
    assert quiet(daemon, 130)


def test_it_stays_while_a_process_that_uses_it_lives(daemon: Daemon) -> None:
    token = {"Authorization": f"Bearer {daemon.secret.control_token}"}
    with subprocess.Popen(["head", "-n1"], stdin=subprocess.PIPE) as user:
        url = f"{daemon.endpoint.api_url}/_cloud/users"
        for pid in (user.pid, user.pid, 2**22 + 1):
            assert requests.post(url, json={"pid": pid}, headers=token, timeout=10).ok
        assert not quiet(daemon, 10_000)
    assert quiet(daemon)


def test_it_stays_while_a_machine_runs_and_an_hour_while_one_is_off(daemon: Daemon) -> None:
    keys = (daemon.endpoint.access_key_id, daemon.endpoint.secret_access_key)
    session = boto3.Session(*keys, region_name=daemon.endpoint.region)
    ec2 = session.client("ec2", endpoint_url=daemon.endpoint.api_url)
    machine_id = launch(ec2)
    assert not quiet(daemon, 10_000)
    ec2.terminate_instances(InstanceIds=[machine_id])
    assert quiet(daemon)
    stopped(ec2)
    assert not quiet(daemon)
    assert quiet(daemon, 3700)


def test_its_state_is_refused_where_files_have_no_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows' drives in WSL."""
    folders = folders_of(tmp_path)
    folders.state.mkdir(parents=True)
    folders.state.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)
    with pytest.raises(LocalCloudError, match="cannot be kept from others: put the tree on a disk of Linux' own"):
        folders.make_state()


def serving(folders: Folders, *, seconds: float) -> "subprocess.Popen[bytes]":
    base_image.folder(folders).mkdir(parents=True, exist_ok=True)
    folders.make_state()
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folders.state), str(seconds)], env={"PYTHONPATH": str(TOOLS), "PATH": "/bin"}
    )


@pytest.mark.slow
def test_it_ends_by_itself_and_takes_its_secret_along(tmp_path: Path) -> None:
    folders = folders_of(tmp_path)
    with serving(folders, seconds=2) as process:
        until(folders.endpoint.exists, 30)
        assert {path.stat().st_mode & 0o777 for path in (folders.secret, folders.endpoint)} == {0o600}
        assert folders.state.stat().st_mode & 0o777 == 0o700
        first = folders.secret.read_text()
        assert process.wait(30) == 0
    assert not folders.secret.exists()
    assert not folders.endpoint.exists()
    with serving(folders, seconds=60) as process:
        until(folders.endpoint.exists, 30)
        assert folders.secret.read_text() != first
        assert LocalCloud.stop(tmp_path)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_what_a_killed_one_has_left_leads_nobody_to_its_port(tmp_path: Path) -> None:
    """Which may be another user's by then, who would be told the token and name a process for root to enter."""
    folders = folders_of(tmp_path)
    with serving(folders, seconds=60) as process:
        until(folders.endpoint.exists, 30)
        port = json.loads(folders.endpoint.read_text())["api_port"]
        token = Secret(json.loads(folders.secret.read_text())).control_token
        health = requests.get(
            f"http://127.0.0.1:{port}/_cloud/health", headers={"Authorization": f"Bearer {token}"}, timeout=10
        )
        assert health.json()["pid"] == process.pid
        process.kill()
    with pytest.raises(LocalCloudError, match="is not running"):
        LocalCloud.leader(tmp_path, "i-0", seconds=0)
