"""Instances: starts, watches, stops and terminates them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from baker.aws import requests
from baker.aws.client import Clients, aws_errors, eventually, is_missing, tag_filters, unless_missing, wait_for
from baker.aws.state_reason import StateReason
from baker.errors import AwsError, BakeError

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef

INSTANCE_TIMEOUT = 600.0  # seconds for an instance to stop or to go
ENDED = frozenset({"shutting-down", "terminated", "stopping", "stopped"})
LIVING = ["pending", "running", "stopping", "stopped"]
NO_LATEST = frozenset({"UnsupportedOperation", "IncorrectInstanceState", "IncorrectState"})


@dataclass(frozen=True)
class Ec2Instance:
    """An instance of a bake as EC2 describes it; `deadline` is its tag, None when that cannot be read."""

    id: str
    state: str
    bake: str
    role: str
    kind: str  # instance type
    zone: str
    deadline: datetime | None
    keep: bool = False  # it stays up when it fails, to be looked at

    @property
    def until(self) -> str:
        """How long it will be there, for a person."""
        return f"until {self.deadline:%H:%M} UTC" if self.deadline else "until it is ended"

    def overdue(self, now: datetime) -> bool:
        """Whether it should have ended itself."""
        return requests.overdue(self.deadline, now)


@dataclass(frozen=True)
class InstanceStatus:
    """An instance's state, and whether AWS' status checks of it fail."""

    state: str
    impaired: bool = False


class Instances:
    """The instances of one account in one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def run(self, request: requests.Request) -> str:
        """Start one instance and return its id; the client token makes a repetition harmless."""

        def run() -> str:
            with aws_errors(f"RunInstances {request.get('InstanceType', '')}".rstrip()):
                return self._clients.ec2.run_instances(**request)["Instances"][0]["InstanceId"]

        return eventually(self._clients, run)  # the image and the group may be seconds old

    def state(self, instance_id: str) -> str:
        """EC2's state of the instance; `pending` while EC2 does not know it yet."""
        found = self._describe(instance_id)
        return found["State"]["Name"] if found else "pending"

    def status(self, instance_id: str) -> InstanceStatus:
        """The instance's state, and whether AWS' status checks fail; `pending` while AWS does not know it yet."""
        describe = self._clients.ec2.describe_instance_status
        found = unless_missing(
            "DescribeInstanceStatus", lambda: describe(InstanceIds=[instance_id], IncludeAllInstances=True)
        )
        if not found or not found["InstanceStatuses"]:
            return InstanceStatus("pending")
        status = found["InstanceStatuses"][0]
        checks = [status.get("SystemStatus", {}).get("Status"), status.get("InstanceStatus", {}).get("Status")]
        return InstanceStatus(status["InstanceState"]["Name"], impaired="impaired" in checks)

    def why_ended(self, instance_id: str) -> StateReason:
        """What EC2 says about why an instance ended; empty when it does not say."""
        try:
            found = self._describe(instance_id)
        except AwsError:  # the reason is only for a message
            return StateReason()
        told = found.get("StateReason", {}) if found else {}
        return StateReason(told.get("Code", ""), told.get("Message", ""))

    def ours(self, bake: str = "", role: str = "") -> list[Ec2Instance]:
        """The machines of every bake, or of one, that still exist."""
        named = {requests.TAG_BAKE: bake, requests.TAG_ROLE: role}
        filters: list[FilterTypeDef] = [
            *tag_filters({key: value for key, value in named.items() if value}),
            {"Name": "tag-key", "Values": [requests.TAG_BAKE]},
            {"Name": "instance-state-name", "Values": LIVING},
        ]
        return [_machine(instance) for instance in self._described(filters)]

    def _described(self, filters: "list[FilterTypeDef]") -> "list[InstanceTypeDef]":
        with aws_errors("DescribeInstances"):
            pages = self._clients.ec2.get_paginator("describe_instances").paginate(Filters=filters)
            return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]

    def launched(self, name: str, role: str = "") -> list[str]:
        """Ids of the instances that exist and were started to serve as `name`, or of those with this role there."""
        named = {requests.TAG_LAUNCH: name, requests.TAG_ROLE: role}
        filters: list[FilterTypeDef] = [
            *tag_filters({key: value for key, value in named.items() if value}),
            {"Name": "instance-state-name", "Values": LIVING},
        ]
        return [instance["InstanceId"] for instance in self._described(filters)]

    def started_from(self, image_ids: Iterable[str]) -> dict[str, list[str]]:
        """Ids of all existing instances of these images, by image."""
        wanted = sorted(image_ids)
        if not wanted:
            return {}
        filters: list[FilterTypeDef] = [
            {"Name": "image-id", "Values": wanted},
            {"Name": "instance-state-name", "Values": LIVING},
        ]
        found = self._described(filters)
        return {image: [i["InstanceId"] for i in found if i["ImageId"] == image] for image in wanted}

    def images(self, instance_ids: Iterable[str]) -> dict[str, str]:
        """The image that each was started from; EC2 may not know a new instance yet."""
        wanted = sorted(instance_ids)
        found = self._described([{"Name": "instance-id", "Values": wanted}]) if wanted else []
        return {instance["InstanceId"]: instance["ImageId"] for instance in found}

    def stop(self, instance_id: str) -> None:
        """Stop an instance and wait until it is stopped, so that its disk does not change any more."""

        def stop() -> None:
            with aws_errors("StopInstances"):
                self._clients.ec2.stop_instances(InstanceIds=[instance_id])

        eventually(self._clients, stop)
        self.wait(instance_id, "stopped")

    def terminate(self, instance_id: str) -> None:
        """Terminate an instance, which may be too new for all of AWS to know it, or gone already; does not wait."""

        def terminate() -> None:
            with aws_errors("TerminateInstances"):
                self._clients.ec2.terminate_instances(InstanceIds=[instance_id])

        try:
            eventually(self._clients, terminate)
        except AwsError as error:
            if not is_missing(error):
                raise

    def wait(self, instance_id: str, wanted: str) -> None:
        """Return once the instance is in the state `wanted`; raises BakeError if it cannot get there any more."""

        def poll() -> bool | None:
            state = self.state(instance_id)
            if state == "terminated" != wanted:
                reason = self.why_ended(instance_id)
                told = "; ".join(filter(None, (str(reason), reason.mend)))
                raise BakeError(f"the instance {instance_id} is gone; it was to be {wanted}" + f": {told}" * bool(told))
            return state == wanted or None

        if wait_for(poll, INSTANCE_TIMEOUT, self._clients.sleep) is None:
            raise BakeError(f"the instance {instance_id} was not {wanted} after {INSTANCE_TIMEOUT:.0f} s")

    def console(self, instance_id: str) -> str:
        """The last 64 KB of the console; empty when there is none (yet), or it cannot be had.

        EC2 has the latest output only of a running instance of some types; else what it kept at the last change.
        """
        for latest in (True, False):
            try:
                with aws_errors("GetConsoleOutput"):
                    answer = self._clients.ec2.get_console_output(InstanceId=instance_id, Latest=latest)
            except AwsError as error:  # a missing log must not hide why a bake failed
                if error.code not in NO_LATEST:
                    return ""
                continue
            if answer.get("Output"):
                return answer["Output"]  # botocore has decoded it
        return ""

    def addresses(self, instance_id: str) -> tuple[str, str]:
        """The public address of an instance, and that inside its VPC; each is empty if there is none."""
        found = self._describe(instance_id)
        return (found.get("PublicIpAddress", ""), found.get("PrivateIpAddress", "")) if found else ("", "")

    def _describe(self, instance_id: str) -> "InstanceTypeDef | None":
        describe = self._clients.ec2.describe_instances
        found = unless_missing("DescribeInstances", lambda: describe(InstanceIds=[instance_id])["Reservations"])
        return found[0]["Instances"][0] if found else None


def _machine(described: "InstanceTypeDef") -> Ec2Instance:
    tags = {tag.get("Key", ""): tag.get("Value", "") for tag in described.get("Tags", [])}
    return Ec2Instance(
        id=described["InstanceId"],
        state=described["State"]["Name"],
        bake=tags.get(requests.TAG_BAKE, ""),
        role=tags.get(requests.TAG_ROLE, ""),
        kind=described["InstanceType"],
        zone=described.get("Placement", {}).get("AvailabilityZone", ""),
        deadline=requests.parse_time(tags.get(requests.TAG_DEADLINE, "")),
        keep=tags.get(requests.TAG_KEEP) == "true",
    )
