"""A machine with an instance profile learns at its metadata service who it is, and gets keys that do what it must."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.credentials import Credentials
from botocore.utils import InstanceMetadataFetcher
from localcloud.aws.account import PROFILE
from localcloud.aws.sigv4 import RefusedError
from localcloud.endpoint import BUCKET, REGION
from localcloud.machines import base_image
from localcloud.roles import OBJECTS, RoleSessions, expect_permitted
from support.running_cloud import RunningCloud, launch, refused
from transcribe.feeder import leaving
from transcribe.fleet import queues

pytestmark = pytest.mark.slow
Sqs = Any


FORWARD = """
import asyncio, socket, sys
from localcloud.machines.relay import forward
asyncio.run(forward([socket.socket(fileno=int(sys.argv[1]))], [sys.argv[2]]))
"""


@contextmanager
def metadata(running: RunningCloud, machine_id: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where this process, as if it were on the machine, asks its metadata service; a process with relay.py's code leads
    there."""
    folder = os.open(running.cloud.machines.get(machine_id).folder, os.O_PATH)
    path = f"/proc/self/fd/{folder}/metadata.sock"  # the whole path may be longer than an address can be
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        relay = subprocess.Popen(
            [sys.executable, "-c", FORWARD, str(listener.fileno()), path],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=(listener.fileno(), folder),
            stdout=subprocess.DEVNULL,
        )
    monkeypatch.setenv(leaving.METADATA_VARIABLE, url)
    try:
        yield url
    finally:
        relay.kill()
        relay.wait()
        os.close(folder)


def keys_at(url: str) -> Credentials:
    """The keys of the role, as botocore gets them on an instance."""
    found = InstanceMetadataFetcher(base_url=url).retrieve_iam_role_credentials()
    return Credentials(found["access_key"], found["secret_key"], found["token"])


def member(running: RunningCloud) -> str:
    """A machine with the profile."""
    return launch(running.ec2, IamInstanceProfile={"Name": PROFILE})


def test_a_machine_with_a_profile_learns_about_itself_and_about_its_end(
    running: RunningCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_id = member(running)
    with metadata(running, machine_id, monkeypatch) as url:
        data = f"{url}/latest/meta-data"
        assert requests.get(f"{data}/instance-id", timeout=5).status_code == 401
        token = requests.put(
            f"{url}/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}, timeout=5
        )
        seen = {"X-aws-ec2-metadata-token": token.text}
        about = {
            name: requests.get(f"{data}/{name}", headers=seen, timeout=5)
            for name in ("instance-id", "placement/region", "x")
        }
        assert [(answer.status_code, answer.text) for answer in about.values()] == [
            (200, machine_id), (200, REGION), (404, ""),
        ]  # fmt: skip
        assert leaving.notice() == ""
        assert running.ask("POST", f"machines/{machine_id}/spot-notice").ok
        assert leaving.notice() == "spot"


def test_the_role_permits_what_a_fleets_machine_does(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    queues.make(running.client("sqs"), "speech", {})
    with metadata(running, member(running), monkeypatch) as url:
        keys = keys_at(url)
    s3, sqs = running.client("s3", keys=keys), running.client("sqs", keys=keys)
    s3.put_object(Bucket=BUCKET, Key=f"{OBJECTS}/state/a b.json", Body=b"{}", IfNoneMatch="*")
    assert s3.get_object(Bucket=BUCKET, Key=f"{OBJECTS}/state/a b.json")["Body"].read() == b"{}"
    found = queues.find(sqs, "speech")
    assert found
    found.usual.send(b'{"job": "a"}', "anna")
    taken = found.usual.receive(hold=60, wait=1)
    assert taken
    found.usual.delete(taken.receipt)
    figure = {"MetricName": "Speed", "Value": 1.0}
    running.client("cloudwatch", keys=keys).put_metric_data(Namespace="Transcribe/Fleet", MetricData=[figure])


def test_the_role_permits_nothing_else(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    made, machine_id = queues.make(running.client("sqs"), "speech", {}), member(running)
    running.client("s3").put_object(Bucket=BUCKET, Key="transcribe-bake/manifest", Body=b"{}")
    with metadata(running, machine_id, monkeypatch) as url:
        keys = keys_at(url)
    s3, sqs = running.client("s3", keys=keys), running.client("sqs", keys=keys)
    assert refused(s3.list_buckets) == refused(s3.list_objects_v2, Bucket=BUCKET, Prefix=OBJECTS) == "AccessDenied"
    for key in ("transcribe-bake/manifest", f"{OBJECTS}/../transcribe-bake/manifest"):
        assert refused(s3.put_object, Bucket=BUCKET, Key=key, Body=b"") == "AccessDenied"
        source = {"Bucket": BUCKET, "Key": key}
        assert refused(s3.copy_object, Bucket=BUCKET, Key=f"{OBJECTS}/x", CopySource=source) == "AccessDenied"
    assert refused(sqs.delete_queue, QueueUrl=made.usual.url) == "AccessDenied"
    # moto would take this body for a form that asks for another call
    hidden = {"QueueUrl": made.usual.url, "MessageBody": "x&Action=DeleteQueue&y"}
    assert refused(sqs.send_message, **hidden) == "AccessDenied"
    assert refused(running.client("ec2", keys=keys).describe_instances) == "AccessDenied"
    assert refused(running.client("autoscaling", keys=keys).describe_auto_scaling_groups) == "AccessDenied"
    assert running.ask("GET", "health", Authorization=f"Bearer {keys.token}").status_code == 403
    forged = Credentials(keys.access_key, keys.secret_key, "another token")
    assert refused(running.client("sqs", keys=forged).get_queue_url, QueueName="speech") == "InvalidToken"


def test_keys_end_with_their_machine(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_id = member(running)
    socket: Path = running.cloud.machines.get(machine_id).metadata_socket
    with metadata(running, machine_id, monkeypatch) as url:
        s3 = running.client("s3", keys=keys_at(url))
    s3.put_object(Bucket=BUCKET, Key=f"{OBJECTS}/x", Body=b"")
    running.ec2.terminate_instances(InstanceIds=[machine_id])
    assert refused(s3.put_object, Bucket=BUCKET, Key=f"{OBJECTS}/x", Body=b"") == "InvalidAccessKeyId"
    assert not socket.exists()


def test_keys_are_renewed_before_they_expire_and_are_good_until_then() -> None:
    now = [0.0]
    sessions = RoleSessions(lifetime=3600, clock=lambda: now[0])
    first = sessions.give("i-1")
    assert sessions.give("i-1") == first
    assert sessions.give("i-2") != first
    now[0] = 2500.0
    second = sessions.give("i-1")
    assert second != first
    assert sessions.find(first.credentials.access_key)
    now[0] = 3601.0
    assert not sessions.find(first.credentials.access_key)
    assert sessions.find(second.credentials.access_key)


def test_a_machine_without_a_profile_has_no_metadata_service(running: RunningCloud) -> None:
    assert not running.cloud.machines.get(launch(running.ec2)).metadata_socket.exists()
    assert refused(launch, ec2=running.ec2, IamInstanceProfile={"Name": "nobody's"}) == "NoSuchEntity"


def test_machines_that_a_group_starts_have_its_profile(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"ImageId": base_image.source_ami(), "InstanceType": "g4dn.xlarge", "IamInstanceProfile": {"Name": PROFILE}}
    running.ec2.create_launch_template(LaunchTemplateName="tpl", LaunchTemplateData=data)
    running.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="g", MinSize=1, MaxSize=1, AvailabilityZones=[f"{REGION}a"],
        LaunchTemplate={"LaunchTemplateName": "tpl"},
    )  # fmt: skip
    [machine_id] = running.cloud.machines.running()
    with metadata(running, machine_id, monkeypatch) as url:
        assert leaving.group_member() == machine_id
        keys_at(url)


def test_no_other_service_is_permitted() -> None:
    with pytest.raises(RefusedError):
        expect_permitted({"PATH_INFO": f"/{BUCKET}/{OBJECTS}/x"}, "iam")
