"""moto over HTTP behind the local cloud's own EC2 layer, with nothing booted: machines are moto's records only."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from baker import interrupts
from baker.bake import pipeline, steps
from baker.bake.report import BakeOutcome
from baker.context import BakeContext
from localcloud.aws import s3_conditions, scaling
from localcloud.aws.ec2 import Ec2Layer
from localcloud.aws.query_protocol import Ec2Error
from werkzeug.serving import make_server

from support.fake_machine import Fleet
from support.moto_app import moto_app

BUCKET = "bakes"
REGION = "eu-north-1"
LIVING = ("pending", "running", "stopping", "stopped")


class RecordedMachines:
    """The layer's view of machines that do not exist; it refuses image names that were used before."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.ended: set[str] = set()

    def may_run(self, image_id: str) -> None: ...
    def launched(self, instance_ids: list[str], image_id: str, user_data: bytes) -> None: ...
    def stop(self, instance_ids: list[str], *, force: bool) -> None: ...
    def start(self, instance_ids: list[str]) -> None: ...
    def reboot(self, instance_ids: list[str]) -> None: ...
    def imaged(self, instance_id: str, image_id: str, *, no_reboot: bool, snapshot_tags: Mapping[str, str]) -> None: ...
    def copied(self, source_id: str, image_id: str) -> None: ...
    def deregistered(self, image_id: str) -> None: ...
    def changed(self) -> None: ...
    def reconcile(self) -> None: ...

    def terminate(self, instance_ids: list[str]) -> None:
        self.ended.update(instance_ids)

    def terminated(self, instance_id: str) -> bool:
        return instance_id in self.ended

    def console(self, instance_id: str) -> bytes:
        return f"console of {instance_id}\n".encode()

    def may_image(self, instance_id: str, name: str) -> None:
        if name in self.names:
            raise Ec2Error("InvalidAMIName.Duplicate", f"AMI name {name} is already in use")
        self.names.add(name)


@contextmanager
def serving() -> Iterator[str]:
    """The server's address, while it serves."""
    moto = s3_conditions.atomic(moto_app())
    application = scaling.understood(Ec2Layer(moto, RecordedMachines()))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def client_session(region: str) -> boto3.Session:
    """A session with keys that mean nothing."""
    return boto3.Session("testing", "testing", region_name=region)


@dataclass
class Cloud:
    """A moto server with a bucket and a source image, a launcher connected to it, and machines that answer."""

    context: BakeContext
    fleet: Fleet
    session: boto3.Session
    ec2: Any
    s3: Any

    def instances(self) -> list[Any]:
        reservations = self.ec2.describe_instances()["Reservations"]
        return [instance for reservation in reservations for instance in reservation["Instances"]]

    def living(self) -> list[str]:
        return [i["InstanceId"] for i in self.instances() if i["State"]["Name"] in LIVING]

    def images(self) -> list[Any]:
        found: list[Any] = self.ec2.describe_images(Owners=["self"])["Images"]
        return [image for image in found if image["Name"] != "source"]

    def snapshots(self) -> list[Any]:
        found: list[Any] = self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return [s for s in found if "Created by CreateImage" in s["Description"]]

    def bake(self, **options: Any) -> BakeOutcome:
        with interrupts.raised():
            return pipeline.bake(self.context, steps.BakeOptions(**options))

    def assert_nothing_left(self) -> None:
        assert self.living() == []
        assert self.images() == []
        assert self.snapshots() == []
