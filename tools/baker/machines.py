"""Instances and the security group they stand behind: started, watched, stopped, ended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from baker import launchspec
from baker.awscalls import POLL_SECONDS, Clients, Patience, aws_errors, eventually, is_missing, tag_filters
from baker.config import Instance
from baker.errors import AwsError, BakeError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef, SecurityGroupTypeDef

INSTANCE_TIMEOUT = 600.0  # seconds for an instance to stop or to go
GROUP_NAME = "transcribe-bake"
ENDED = frozenset({"shutting-down", "terminated", "stopping", "stopped"})
LIVING = ["pending", "running", "stopping", "stopped"]


@dataclass(frozen=True)
class Machine:
    """An instance of a bake as EC2 describes it; `deadline` is its tag, None when that cannot be read."""

    id: str
    state: str
    bake: str
    role: str
    kind: str  # instance type
    zone: str
    deadline: datetime | None

    def overdue(self, now: datetime) -> bool:
        """Whether it should have ended itself; one without a readable deadline has none to wait for."""
        return self.deadline is None or now > self.deadline


@dataclass(frozen=True)
class Look:
    """What is seen of an instance from outside."""

    state: str
    impaired: bool = False


class Machines:
    """The instances of one account in one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def run(self, request: launchspec.Request) -> str:
        """Start one instance and return its id; the client token makes a repetition harmless."""

        def run() -> str:
            with aws_errors(f"RunInstances {request['InstanceType']}"):
                return self._clients.ec2.run_instances(**request)["Instances"][0]["InstanceId"]

        return eventually(self._clients, run)  # the image and the group may be seconds old

    def state(self, instance_id: str) -> str:
        """EC2's word for what the instance does; `pending` while describe does not know it yet."""
        try:
            with aws_errors("DescribeInstances"):
                found = self._clients.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        except AwsError as error:
            if is_missing(error):
                return "pending"
            raise
        return found[0]["Instances"][0]["State"]["Name"] if found else "pending"

    def look(self, instance_id: str) -> Look:
        """What the instance does, and whether AWS' own checks of it fail; `pending` while AWS does not know it yet."""
        try:
            with aws_errors("DescribeInstanceStatus"):
                found = self._clients.ec2.describe_instance_status(InstanceIds=[instance_id], IncludeAllInstances=True)[
                    "InstanceStatuses"
                ]
        except AwsError as error:
            if is_missing(error):
                return Look("pending")
            raise
        if not found:
            return Look("pending")
        checks = [found[0].get("SystemStatus", {}).get("Status"), found[0].get("InstanceStatus", {}).get("Status")]
        return Look(found[0]["InstanceState"]["Name"], impaired="impaired" in checks)

    def why_ended(self, instance_id: str) -> str:
        """AWS' code for why an instance ended, such as Server.SpotInstanceTermination; empty when it does not say."""
        try:
            with aws_errors("DescribeInstances"):
                found = self._clients.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        except AwsError:  # the reason is only a help
            return ""
        return found[0]["Instances"][0].get("StateReason", {}).get("Code", "") if found else ""

    def ours(self, bake: str = "", role: str = "") -> list[Machine]:
        """The machines of every bake, or of one, that still exist."""
        named = {launchspec.TAG_BAKE: bake, launchspec.TAG_ROLE: role}
        filters: list[FilterTypeDef] = [
            *tag_filters({key: value for key, value in named.items() if value}),
            {"Name": "tag-key", "Values": [launchspec.TAG_BAKE]},
            {"Name": "instance-state-name", "Values": LIVING},
        ]
        with aws_errors("DescribeInstances"):
            pages = self._clients.ec2.get_paginator("describe_instances").paginate(Filters=filters)
            reservations = [reservation for page in pages for reservation in page["Reservations"]]
        return [_machine(instance) for reservation in reservations for instance in reservation["Instances"]]

    def started_from(self, image_ids: Iterable[str]) -> dict[str, list[str]]:
        """Ids of the instances that exist, of whoever, by the image each was started from."""
        wanted = sorted(image_ids)
        if not wanted:
            return {}
        filters: list[FilterTypeDef] = [
            {"Name": "image-id", "Values": wanted},
            {"Name": "instance-state-name", "Values": LIVING},
        ]
        with aws_errors("DescribeInstances"):
            pages = self._clients.ec2.get_paginator("describe_instances").paginate(Filters=filters)
            found = [instance for page in pages for told in page["Reservations"] for instance in told["Instances"]]
        return {image: [i["InstanceId"] for i in found if i["ImageId"] == image] for image in wanted}

    def stop(self, instance_id: str) -> None:
        """Stop an instance and wait until its disk is still."""

        def stop() -> None:
            with aws_errors("StopInstances"):
                self._clients.ec2.stop_instances(InstanceIds=[instance_id])

        eventually(self._clients, stop)
        self.wait(instance_id, "stopped")

    def terminate(self, instance_id: str) -> None:
        """Begin to end an instance, which may be so new that not all of AWS knows it, or gone already."""

        def terminate() -> None:
            with aws_errors("TerminateInstances"):
                self._clients.ec2.terminate_instances(InstanceIds=[instance_id])

        try:
            eventually(self._clients, terminate)
        except AwsError as error:
            if not is_missing(error):
                raise

    def wait(self, instance_id: str, wanted: str) -> None:
        """Return once the instance is in the state `wanted`; raises BakeError if that cannot come any more."""
        patience = Patience()
        for _ in range(int(INSTANCE_TIMEOUT / POLL_SECONDS)):
            try:
                state = self.state(instance_id)
            except AwsError as error:
                patience.bear(error)
                state = ""
            if state == wanted:
                return
            if state == "terminated":
                raise BakeError(f"the instance {instance_id} is gone; it was to be {wanted}")
            self._clients.sleep(POLL_SECONDS)
        raise BakeError(f"the instance {instance_id} was not {wanted} after {INSTANCE_TIMEOUT:.0f} s")

    def console(self, instance_id: str) -> str:
        """The last 64 KB of the console; empty when there is none (yet), or it cannot be had."""
        try:
            with aws_errors("GetConsoleOutput"):
                answer = self._clients.ec2.get_console_output(InstanceId=instance_id, Latest=True)
        except AwsError:  # some types have no latest output; and a log must not hide why a bake failed
            return ""
        return answer.get("Output", "")  # botocore has decoded it

    def security_group(self, instance: Instance, tags: Mapping[str, str]) -> str:
        """The group that lets nobody in: the configured one, or one that is made once in each VPC.

        Raises UsageError when that group has a rule that lets somebody in.
        """
        if instance.security_group:
            group = self._describe_group({"group-id": instance.security_group})
            if group is None:
                raise UsageError(f"[instance] there is no security group {instance.security_group} in this region")
            return _without_ingress(group)
        vpc = self._vpc(instance)
        group = self._describe_group({"group-name": GROUP_NAME, "vpc-id": vpc})
        return _without_ingress(group) if group else self._create_group(vpc, tags)

    def _create_group(self, vpc: str, tags: Mapping[str, str]) -> str:
        """Make the shared group; one that is there after all, though nobody told, is taken."""
        try:
            with aws_errors("CreateSecurityGroup"):
                return self._clients.ec2.create_security_group(
                    GroupName=GROUP_NAME,
                    Description="Machines of a bake: nobody may connect",
                    VpcId=vpc,
                    TagSpecifications=launchspec.tag_specifications(("security-group",), {"Name": GROUP_NAME, **tags}),
                )["GroupId"]
        except AwsError as error:
            if error.code != "InvalidGroup.Duplicate":
                raise
        return eventually(self._clients, lambda: _without_ingress(self._group_named(vpc)))

    def _group_named(self, vpc: str) -> "SecurityGroupTypeDef":
        group = self._describe_group({"group-name": GROUP_NAME, "vpc-id": vpc})
        if group is None:
            raise AwsError(f"AWS has a security group {GROUP_NAME} and does not show it", "InvalidGroup.NotFound")
        return group

    def _vpc(self, instance: Instance) -> str:
        """The VPC of the configured subnets, or the default one."""
        if instance.subnets:
            with aws_errors("DescribeSubnets"):
                subnets = self._clients.ec2.describe_subnets(SubnetIds=list(instance.subnets))["Subnets"]
            vpcs = sorted({subnet["VpcId"] for subnet in subnets})
            if len(vpcs) != 1:
                raise UsageError(f"[instance] subnets must lie in one VPC, not in {', '.join(vpcs) or 'none'}")
            return vpcs[0]
        with aws_errors("DescribeVpcs"):
            default = self._clients.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not default:
            raise UsageError("this region has no default VPC; name your subnets in [instance] subnets")
        return default[0]["VpcId"]

    def _describe_group(self, wanted: Mapping[str, str]) -> "SecurityGroupTypeDef | None":
        filters: list[FilterTypeDef] = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
        with aws_errors("DescribeSecurityGroups"):
            found = self._clients.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        return found[0] if found else None


def _machine(described: "InstanceTypeDef") -> Machine:
    tags = {tag.get("Key", ""): tag.get("Value", "") for tag in described.get("Tags", [])}
    return Machine(
        id=described["InstanceId"],
        state=described["State"]["Name"],
        bake=tags.get(launchspec.TAG_BAKE, ""),
        role=tags.get(launchspec.TAG_ROLE, ""),
        kind=described["InstanceType"],
        zone=described.get("Placement", {}).get("AvailabilityZone", ""),
        deadline=launchspec.parse_time(tags.get(launchspec.TAG_DEADLINE, "")),
    )


def _without_ingress(group: "SecurityGroupTypeDef") -> str:
    if group.get("IpPermissions"):
        raise UsageError(f"the security group {group['GroupId']} lets connections in; remove its ingress rules")
    return group["GroupId"]
