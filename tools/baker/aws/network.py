"""The machines' network: their VPC, its subnets, and the security group without ingress."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from baker.aws import requests
from baker.aws.client import Clients, aws_errors, eventually
from baker.config import InstanceSection
from baker.errors import AwsError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SecurityGroupTypeDef

GROUP_NAME = "transcribe-bake"


class Networks:
    """The VPCs of one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def security_group(self, instance: InstanceSection, tags: Mapping[str, str]) -> str:
        """A group without ingress rules: the configured one, or one that is made once in each VPC.

        Raises UsageError if the group has an ingress rule.
        """
        group, vpc = self.present_group(instance)
        return group or self._create_group(vpc, tags)

    def present_group(self, instance: InstanceSection) -> tuple[str, str]:
        """The group if it exists, empty if it is still to be made, and the VPC where the configuration names none."""
        if instance.security_group:
            group = self._describe_group({"group-id": instance.security_group})
            if group is None:
                raise UsageError(f"[instance] there is no security group {instance.security_group} in this region")
            return _without_ingress(group), ""
        vpc = self.vpc(instance)
        group = self._describe_group({"group-name": GROUP_NAME, "vpc-id": vpc})
        return (_without_ingress(group) if group else ""), vpc

    def _create_group(self, vpc: str, tags: Mapping[str, str]) -> str:
        """Make the shared group, or take the one that another launcher has made meanwhile."""

        def create() -> str:
            with aws_errors("CreateSecurityGroup"):
                return self._clients.ec2.create_security_group(
                    GroupName=GROUP_NAME,
                    Description="Machines of a bake: nobody may connect",
                    VpcId=vpc,
                    TagSpecifications=requests.tag_specifications(("security-group",), {"Name": GROUP_NAME, **tags}),
                )["GroupId"]

        try:
            return eventually(self._clients, create)
        except AwsError as error:
            if error.code != "InvalidGroup.Duplicate":
                raise
        return eventually(self._clients, lambda: _without_ingress(self._group_named(vpc)))

    def _group_named(self, vpc: str) -> "SecurityGroupTypeDef":
        group = self._describe_group({"group-name": GROUP_NAME, "vpc-id": vpc})
        if group is None:
            raise AwsError(f"AWS has a security group {GROUP_NAME} and does not show it", "InvalidGroup.NotFound")
        return group

    def lets_in(self, groups: Iterable[str], port: int) -> bool:
        """Whether any of the groups lets TCP to a port in, from wherever."""
        with aws_errors("DescribeSecurityGroups"):
            found = self._clients.ec2.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
        rules = [rule for group in found for rule in group.get("IpPermissions", [])]
        return any(
            rule.get("IpProtocol") == "-1" or rule.get("FromPort", 0) <= port <= rule.get("ToPort", 65535)
            for rule in rules
        )

    def vpc(self, instance: InstanceSection) -> str:
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
