"""What an account is allowed and has: identity, quotas, default keys, roles. Asks and answers; decides nothing."""

from collections.abc import Iterable
from typing import Any

from baker.aws.client import Clients, aws_errors, unless_missing


class Account:
    """One account in one region. Every call only reads; a client is made when it is first needed."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def identity(self) -> str:
        """The ARN of whoever calls."""
        with aws_errors("GetCallerIdentity"):
            return str(self._clients.other("sts").get_caller_identity()["Arn"])

    def quota(self, service: str, code: str) -> float:
        """A quota's value, the account's own or AWS' default."""
        with aws_errors(f"GetServiceQuota {code}"):
            answer = self._clients.other("service-quotas").get_service_quota(ServiceCode=service, QuotaCode=code)
        return float(answer["Quota"]["Value"])

    def vcpus(self, types: Iterable[str]) -> dict[str, int]:
        """The vCPUs of each instance type that there is."""
        with aws_errors("DescribeInstanceTypes"):
            found = self._clients.ec2.describe_instance_types(InstanceTypes=list(types))["InstanceTypes"]  # type: ignore[arg-type]
        return {str(kind["InstanceType"]): int(kind["VCpuInfo"]["DefaultVCpus"]) for kind in found}

    def default_disk_key(self) -> str:
        """The key that encrypts disks for which no other is named."""
        with aws_errors("GetEbsDefaultKmsKeyId"):
            return str(self._clients.ec2.get_ebs_default_kms_key_id()["KmsKeyId"])

    def key_state(self, key: str) -> str:
        """A key's state, `Enabled` where it can be used; empty when there is no such key."""
        found: Any = unless_missing(
            "DescribeKey", lambda: self._clients.other("kms").describe_key(KeyId=key)["KeyMetadata"]
        )
        return str(found["KeyState"]) if found else ""

    def has_role(self, name: str) -> bool:
        """Whether a role exists."""
        return unless_missing("GetRole", lambda: self._clients.other("iam").get_role(RoleName=name)) is not None

    def opted_in(self, regions: Iterable[str]) -> dict[str, bool]:
        """Whether each region is enabled for the account; what AWS does not know is not."""
        with aws_errors("DescribeRegions"):
            found = self._clients.ec2.describe_regions(AllRegions=True)["Regions"]
        known = {region["RegionName"]: region.get("OptInStatus") != "not-opted-in" for region in found}
        return {region: known.get(region, False) for region in regions}
