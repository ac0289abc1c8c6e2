"""A local cloud in the process of a test; a process that waits to be told to power off stands for each machine."""

import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
import requests
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from localcloud.aws import persistence
from localcloud.aws.moto_images import ACCOUNT
from localcloud.aws.moto_instances import MotoRegion
from localcloud.cloud import Backend
from localcloud.common import Folders
from localcloud.endpoint import BUCKET, REGION, Secret
from localcloud.machines import base_image
from localcloud.server import Activity, LoopbackServer, Process, aws_app, control_app
from moto.autoscaling.models import autoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.ec2.models import ec2_backends
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends
from moto.ssm.models import ssm_backends

from support.waiting import until

Ec2 = Any  # boto3's client is made at run time
POWERS_OFF = ["head", "-n1"]
SECRET = Secret()
KEYS = SECRET.credentials
SESSION = boto3.Session(KEYS.access_key, KEYS.secret_key)  # shared, since reading EC2's model takes longer than a test


def forget_everything() -> None:
    """Empty moto's records, of which each process has one set."""
    for backend in ec2_backends[ACCOUNT].values():
        backend.reset()
    s3_backends[ACCOUNT]["aws"].reset()
    for backends in (autoscaling_backends, cloudwatch_backends, sqs_backends, ssm_backends):
        backends[ACCOUNT][REGION].reset()


class RunningCloud:
    """A local cloud in this process, its client and its folders."""

    def __init__(self, folders: Folders) -> None:
        forget_everything()
        moto = MotoRegion(REGION)
        moto.create_bucket(BUCKET)
        persistence.restore(folders)
        self.folders = folders
        self._ahead = 0.0
        self.cloud = Backend(folders, moto, self.now)
        self.stopped = False
        control = control_app(self.cloud, Process({}, stop=self._stop, add_user=lambda pid: None))
        self.activity = Activity()
        self.served = LoopbackServer(aws_app(self.cloud, control, self.activity, SECRET))
        self.address = f"127.0.0.1:{self.served.port}"
        self.ec2: Ec2 = self.client("ec2")

    def _stop(self) -> None:
        self.stopped = True

    def now(self) -> float:
        """The time of what happens by itself: it passes as ever, and by `later`."""
        return time.time() + self._ahead

    def later(self, seconds: float = 0.0) -> None:
        """Let so much time pass at once, and what is due happen."""
        self._ahead += seconds
        self.cloud.tick()

    def client(self, service: str, region: str = REGION, *, url: str = "", keys: Credentials = KEYS) -> Any:
        """A client of a service, at `url` or where this host reaches it, that signs with `keys`."""
        return SESSION.client(  # type: ignore[call-overload]
            service,
            region_name=region,
            endpoint_url=url or f"http://{self.address}",
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.token,
        )

    def ask(self, method: str, path: str, json: object = None, **headers: str) -> requests.Response:
        """What the control API answers to the holder of the secret, or with other `headers`."""
        headers = {"Authorization": f"Bearer {SECRET.control_token}", **headers}
        return requests.request(method, f"http://{self.address}/_cloud/{path}", headers=headers, json=json, timeout=10)

    def close(self) -> None:
        self.cloud.close()
        self.served.close()


def launch(ec2: Ec2, **changes: Any) -> str:
    wanted = {"ImageId": base_image.source_ami(), "InstanceType": "g4dn.xlarge", "MinCount": 1, "MaxCount": 1}
    return str(ec2.run_instances(**{**wanted, "UserData": "#cloud-config\n", **changes})["Instances"][0]["InstanceId"])


def state(ec2: Ec2, instance_id: str) -> str:
    [reservation] = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    return str(reservation["Instances"][0]["State"]["Name"])


def stopped(ec2: Ec2, **changes: Any) -> str:
    instance_id = launch(ec2, **changes)
    ec2.stop_instances(InstanceIds=[instance_id])
    until(lambda: state(ec2, instance_id) == "stopped")
    return instance_id


def refused(call: Callable[..., object], **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return str(raised.value.response["Error"]["Code"])
