"""Where a machine may run: types × zones that offer them × spot or on-demand, and what a refusal says of the rest."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baker.aws.client import Clients, aws_errors
from baker.aws.requests import Place
from baker.config import InstanceSection
from baker.errors import AwsError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SubnetTypeDef

NO_ROOM = frozenset({
    "InsufficientCapacity", "InsufficientFreeAddressesInSubnet", "InsufficientHostCapacity",
    "InsufficientInstanceCapacity", "InsufficientVolumeCapacity",
})  # fmt: skip
NOT_THERE = frozenset({"Unsupported"})  # the type, in this zone or as spot
NO_QUOTA = frozenset({
    "VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow",
})  # fmt: skip
ZONE = re.compile(r"\b[a-z]{2}(?:-[a-z]+)+-\d[a-z]\b")


@dataclass(frozen=True)
class Refusal:
    """A place where AWS did not launch a machine, and why."""

    place: Place
    error: AwsError

    def __str__(self) -> str:
        return f"{self.place}: {self.error.code}"


def is_refusal(error: AwsError) -> bool:
    """Whether another place may still have room."""
    return error.code in NO_ROOM | NOT_THERE | NO_QUOTA


def after(refusal: Refusal, rest: Sequence[Place]) -> list[Place]:
    """The places that are still worth trying, in order.

    A quota is of a type's family and a market, so no other zone helps. A refusal for want of room names the zones that
    have some: these first, then other types and markets, and the zones that it did not name last.
    """
    here = [place for place in rest if (place.instance_type, place.market) == refusal.place.pool]
    others = [place for place in rest if place not in here]
    if refusal.error.code in NO_QUOTA:
        return others
    hinted = hinted_zones(str(refusal.error))
    if not hinted:
        return [*here, *others]
    named = sorted((place for place in here if place.zone in hinted), key=lambda place: hinted.index(place.zone))
    return [*named, *others, *(place for place in here if place not in named)]


def hinted_zones(message: str) -> list[str]:
    """The zones that AWS offers instead: those after "choosing" in its message."""
    return ZONE.findall(message.partition(" choosing ")[2])


class Zones:
    """What one region offers, and where the account has subnets in it."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def places(self, instance: InstanceSection) -> tuple[Place, ...]:
        """Every place, in order of preference: by type, market, subnet. Raises UsageError if there is none."""
        subnets = self._subnets(instance)
        offered = self._offered(instance.types)
        found = tuple(
            Place(kind, subnet["SubnetId"], subnet["AvailabilityZone"], market)
            for kind in instance.types
            for market in instance.markets
            for subnet in subnets
            if (kind, subnet["AvailabilityZone"]) in offered
        )
        if found:
            return found
        have = ", ".join(sorted({subnet["AvailabilityZone"] for subnet in subnets}))
        where = ", ".join(sorted({zone for _, zone in offered})) or "no zone of this region"
        raise UsageError(
            f"[instance] types {', '.join(instance.types)} are offered in {where}; your subnets are in {have}"
        )

    def _subnets(self, instance: InstanceSection) -> "list[SubnetTypeDef]":
        """The configured subnets in their order, or those of the default VPC."""
        if instance.subnets:
            with aws_errors("DescribeSubnets"):
                found = self._clients.ec2.describe_subnets(SubnetIds=list(instance.subnets))["Subnets"]
            return sorted(found, key=lambda subnet: instance.subnets.index(subnet["SubnetId"]))
        filters: list[FilterTypeDef] = [{"Name": "default-for-az", "Values": ["true"]}]
        with aws_errors("DescribeSubnets"):
            found = self._clients.ec2.describe_subnets(Filters=filters)["Subnets"]
        if not found:
            raise UsageError("this region has no default VPC; name your subnets in [instance] subnets")
        return sorted(found, key=lambda subnet: subnet["AvailabilityZone"])

    def _offered(self, types: Sequence[str]) -> set[tuple[str, str]]:
        filters: list[FilterTypeDef] = [{"Name": "instance-type", "Values": list(types)}]
        with aws_errors("DescribeInstanceTypeOfferings"):
            pages = self._clients.ec2.get_paginator("describe_instance_type_offerings").paginate(
                LocationType="availability-zone", Filters=filters
            )
            offerings = [offering for page in pages for offering in page["InstanceTypeOfferings"]]
        return {(offering["InstanceType"], offering["Location"]) for offering in offerings}
