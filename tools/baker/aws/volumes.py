"""Volumes and snapshots that bakes left without a machine or an image: found by tag, removed."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from baker.aws import requests
from baker.aws.client import Clients, aws_errors, unless_missing

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef


USUAL_GB, USUAL_RATE = 40, 50  # GiB and MiB/s: what the limits of a first start are made for


def patience(gb: int, rate: int) -> float:
    """How many times as long as usual a first start may take: EBS fetches its disk of so many GiB from the snapshot, at
    `rate` MiB/s if that is asked for, else as it is read."""
    return max(1.0, gb / USUAL_GB * USUAL_RATE / (rate or USUAL_RATE))


@dataclass(frozen=True)
class Volume:
    """A volume or a snapshot of a bake."""

    id: str
    gb: int
    bake: str
    deadline: datetime | None

    def overdue(self, now: datetime) -> bool:
        """Whether its bake's time is over."""
        return requests.overdue(self.deadline, now)


class Volumes:
    """The volumes and snapshots of one account in one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def volumes(self) -> list[Volume]:
        """Volumes of bakes that no instance has; a machine's own end with it."""
        filters: list[FilterTypeDef] = [*_of_bakes(), {"Name": "status", "Values": ["available"]}]
        with aws_errors("DescribeVolumes"):
            pages = self._clients.ec2.get_paginator("describe_volumes").paginate(Filters=filters)
            return [_piece(found["VolumeId"], found["Size"], found) for page in pages for found in page["Volumes"]]

    def snapshots(self) -> list[Volume]:
        """Snapshots of bakes, those of images among them."""
        with aws_errors("DescribeSnapshots"):
            pages = self._clients.ec2.get_paginator("describe_snapshots").paginate(
                OwnerIds=["self"], Filters=_of_bakes()
            )
            return [
                _piece(found["SnapshotId"], found.get("VolumeSize", 0), found)
                for page in pages
                for found in page["Snapshots"]
            ]

    def progress(self, bake: str) -> str:
        """How far EC2 is with the snapshots of a bake, such as `42%`; empty when it does not say."""
        filters: list[FilterTypeDef] = [{"Name": f"tag:{requests.TAG_BAKE}", "Values": [bake]}]
        with aws_errors("DescribeSnapshots"):
            found = self._clients.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        return ", ".join(sorted(snapshot.get("Progress", "") for snapshot in found))

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume; one that is gone is fine."""
        unless_missing("DeleteVolume", lambda: self._clients.ec2.delete_volume(VolumeId=volume_id))

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; one that is gone is fine."""
        unless_missing("DeleteSnapshot", lambda: self._clients.ec2.delete_snapshot(SnapshotId=snapshot_id))


def _of_bakes() -> "list[FilterTypeDef]":
    return [{"Name": "tag-key", "Values": [requests.TAG_BAKE]}]


def _piece(name: str, gb: int, described: Any) -> Volume:
    tags = {tag.get("Key", ""): tag.get("Value", "") for tag in described.get("Tags", [])}
    deadline = requests.parse_time(tags.get(requests.TAG_DEADLINE, ""))
    return Volume(name, gb, tags.get(requests.TAG_BAKE, ""), deadline)
