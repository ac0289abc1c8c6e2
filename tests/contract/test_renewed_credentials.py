"""A bake whose credentials are renewed in the middle: the machine reports by addresses that the new ones signed."""

from dataclasses import dataclass, replace

import pytest
import requests
from baker import interrupts
from baker.aws.s3 import Bucket
from baker.bake import pipeline, steps
from botocore.credentials import ReadOnlyCredentials
from support.fake_cloud import BUCKET, Cloud
from support.fake_machine import FakeMachine
from support.waiting import until

pytestmark = pytest.mark.slow


@dataclass
class Renewed:
    """Credentials as botocore holds them, which another process replaces."""

    key: str

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials(self.key, "secret", "token", "")


def test_addresses_are_signed_again_when_the_credentials_are_renewed(cloud: Cloud) -> None:
    credentials = Renewed("first")
    clients = replace(cloud.context.clients, credentials=credentials)
    seen: list[bool] = []

    def late(machine: FakeMachine) -> None:
        url = machine.parameters["addresses_url"]
        before = requests.get(url, timeout=10).json()
        credentials.key = "second"
        until(lambda: requests.get(url, timeout=10).json() != before)
        seen.append(True)
        machine.put("report", machine.report())

    cloud.fleet.scripts["bake"] = late
    with interrupts.raised():
        outcome = pipeline.bake(replace(cloud.context, bucket=Bucket(clients, BUCKET)), steps.BakeOptions())
    assert outcome.image.verified
    assert seen == [True]
