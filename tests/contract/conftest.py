"""Clouds for tests: moto over HTTP with machines that only signal, and the local cloud with processes for machines."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from baker import config, interrupts
from baker.context import open_context
from baker.display.progress import Display
from localcloud.aws import account
from localcloud.common import Folders
from localcloud.machines import base_image, host_mounts, machines
from rich.console import Console
from support.api_server_fixture import Api
from support.fake_cloud import BUCKET, REGION, Cloud, client_session, serving
from support.fake_machine import Fleet
from support.project_tree import REFERENCE, make_tree
from support.recorder import Recorder
from support.running_cloud import POWERS_OFF, RunningCloud
from support.waiting import until
from transcribe.keys import new_key


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    return client_session(REGION)  # shared, since reading EC2's model takes longer than a test


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A key of Anna's, and the keys file that knows it."""
    value, line = new_key("anna")
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(line)
    return value, file


@pytest.fixture
def held(api: Api) -> Iterator[Api]:
    """The module's `api`, whose worker takes no job until the test is over."""
    api.worker.hold.set()
    yield api
    api.worker.hold.clear()
    until(lambda: not api.store.unfinished())


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    """What the launchers of a module asked of AWS."""
    return Recorder()


@pytest.fixture
def cloud(
    endpoint: str, session: boto3.Session, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # hundreds of images that each reset would make again
    ec2: Any = session.client("ec2", endpoint_url=endpoint)
    s3: Any = session.client("s3", endpoint_url=endpoint)
    requests.post(f"{endpoint}/moto-api/reset", timeout=10)
    account.furnish(REGION)
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    disk = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 10}}
    source = ec2.register_image(Name="source", RootDeviceName="/dev/xvda", BlockDeviceMappings=[disk])["ImageId"]
    document = {
        "aws": {"region": REGION, "endpoint_url": endpoint},
        "s3": {"bucket": BUCKET},
        "source": {"ami": source},
        "tags": {"project": "p"},
        "bake": {"deadline_minutes": 1},
    }
    context = open_context(
        make_tree(tmp_path / "tree"),
        config.from_mapping(document),
        Display(Console(quiet=True)),
        session=recorder.session(session),
        sleep=lambda seconds: interrupts.sleep(min(seconds, 0.05)),
    )
    fleet = Fleet(session, endpoint, REFERENCE)
    fleet.start()
    yield Cloud(context, fleet, session, ec2, s3)
    fleet.end()
    assert fleet.errors == []
    assert recorder.undeclared() == [], "declare these calls in baker/aws/iam_policy.py"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Where a local cloud of the test's own keeps things; nothing that it starts needs root."""
    made = Folders.of(tmp_path / "cloud")
    base_image.folder(made).mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host_mounts, "host_pip", dict)
    monkeypatch.setattr(machines, "supervisor_command", lambda spec: POWERS_OFF)
    return made


@pytest.fixture
def running(folders: Folders) -> Iterator[RunningCloud]:
    made = RunningCloud(folders)
    yield made
    made.close()
