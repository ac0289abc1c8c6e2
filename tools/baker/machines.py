"""Instances and the security group they stand behind: started, watched, stopped, ended."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from baker import launchspec
from baker.awscalls import POLL_SECONDS, Clients, aws_errors, gone_is_fine, is_missing, tag_filters
from baker.config import Instance
from baker.errors import AwsError, BakeError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SecurityGroupTypeDef

INSTANCE_TIMEOUT = 600.0  # seconds for an instance to stop or to go
GROUP_NAME = "transcribe-bake"
ENDED = frozenset({"shutting-down", "terminated", "stopping", "stopped"})
LIVING = ["pending", "running", "stopping", "stopped"]


class Machines:
    """The instances of one account in one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def run(self, request: launchspec.Request) -> str:
        """Start one instance and return its id; the client token makes a repetition harmless."""
        with aws_errors(f"RunInstances {request['InstanceType']}"):
            return self._clients.ec2.run_instances(**request)["Instances"][0]["InstanceId"]

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

    def tagged(self, tags: Mapping[str, str]) -> list[str]:
        """Ids of the instances with these tags that still exist."""
        filters: list[FilterTypeDef] = [*tag_filters(tags), {"Name": "instance-state-name", "Values": LIVING}]
        with aws_errors("DescribeInstances"):
            pages = self._clients.ec2.get_paginator("describe_instances").paginate(Filters=filters)
            reservations = [reservation for page in pages for reservation in page["Reservations"]]
        return [instance["InstanceId"] for reservation in reservations for instance in reservation["Instances"]]

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
        with aws_errors("StopInstances"):
            self._clients.ec2.stop_instances(InstanceIds=[instance_id])
        self.wait(instance_id, "stopped")

    def terminate(self, instance_id: str) -> None:
        """Begin to end an instance."""
        ec2 = self._clients.ec2
        gone_is_fine("TerminateInstances", lambda: ec2.terminate_instances(InstanceIds=[instance_id]))

    def wait(self, instance_id: str, wanted: str) -> None:
        """Return once the instance is in the state `wanted`; raises BakeError if that cannot come any more."""
        for _ in range(int(INSTANCE_TIMEOUT / POLL_SECONDS)):
            state = self.state(instance_id)
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
        if group is not None:
            return _without_ingress(group)
        with aws_errors("CreateSecurityGroup"):
            return self._clients.ec2.create_security_group(
                GroupName=GROUP_NAME,
                Description="Machines of a bake: nobody may connect",
                VpcId=vpc,
                TagSpecifications=launchspec.tag_specifications(("security-group",), tags),
            )["GroupId"]

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


def _without_ingress(group: "SecurityGroupTypeDef") -> str:
    if group.get("IpPermissions"):
        raise UsageError(f"the security group {group['GroupId']} lets connections in; remove its ingress rules")
    return group["GroupId"]
