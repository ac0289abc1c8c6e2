"""How machines get out of their subnets: routes, public addresses, endpoints, and what the group lets out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from baker.aws.client import Clients, aws_errors

ANYWHERE = frozenset({"0.0.0.0/0", "0.0.0.0/1"})  # the latter: one half, for who has split it in two
HTTP, HTTPS = 80, 443
TARGETS = (  # of a route, as EC2 names them
    "GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "VpcPeeringConnectionId",
    "LocalGatewayId", "CarrierGatewayId", "CoreNetworkArn",
)  # fmt: skip


@dataclass(frozen=True)
class WayOut:
    """What a subnet's machines have beyond their own network."""

    subnet: str
    public_address: bool  # its machines get one
    gateway: str  # of the default route, such as igw-… or nat-…; empty: there is none
    blackhole: bool = False  # the default route leads to what is gone
    s3_endpoint: bool = False  # of the gateway kind, in its route table

    @property
    def internet(self) -> bool:
        """Whether anything on the internet can be reached."""
        if not self.gateway or self.blackhole:
            return False
        return self.public_address or not self.gateway.startswith("igw-")


class Routes:
    """The routes of one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def ways_out(self, subnets: Iterable[str]) -> list[WayOut]:
        """One for each subnet, in their order."""
        ec2 = self._clients.ec2
        wanted = list(dict.fromkeys(subnets))
        with aws_errors("DescribeSubnets"):
            found = {s["SubnetId"]: s for s in ec2.describe_subnets(SubnetIds=wanted)["Subnets"]}
        vpcs = sorted({subnet["VpcId"] for subnet in found.values()})
        with aws_errors("DescribeRouteTables"):
            tables: list[Any] = list(
                ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": vpcs}])["RouteTables"]
            )
        return [_way_out(found[subnet], _table(tables, found[subnet])) for subnet in wanted if subnet in found]

    def blocked_ports(self, group: str) -> list[int]:
        """Which of HTTP and HTTPS a security group does not let out to anywhere."""
        with aws_errors("DescribeSecurityGroups"):
            [found] = self._clients.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        rules: list[Any] = list(found.get("IpPermissionsEgress", []))
        return [port for port in (HTTPS, HTTP) if not any(_lets_out(rule, port) for rule in rules)]


def _table(tables: list[Any], subnet: Mapping[str, Any]) -> Mapping[str, Any]:
    """The route table of a subnet: its own, or its VPC's main one."""
    main: Mapping[str, Any] = {}
    for table in tables:
        for association in table.get("Associations", []):
            if association.get("SubnetId") == subnet["SubnetId"]:
                own: Mapping[str, Any] = table
                return own
            if association.get("Main") and table["VpcId"] == subnet["VpcId"]:
                main = table
    return main


def _way_out(subnet: Mapping[str, Any], table: Mapping[str, Any]) -> WayOut:
    routes = table.get("Routes", [])
    default: Mapping[str, Any] = next((r for r in routes if r.get("DestinationCidrBlock") in ANYWHERE), {})
    return WayOut(
        subnet["SubnetId"],
        bool(subnet.get("MapPublicIpOnLaunch")),
        next((str(default[kind]) for kind in TARGETS if default.get(kind)), ""),
        default.get("State") == "blackhole",
        any("DestinationPrefixListId" in r and str(r.get("GatewayId")).startswith("vpce-") for r in routes),
    )


def _lets_out(rule: Mapping[str, Any], port: int) -> bool:
    """Whether an egress rule lets TCP to a port out to anywhere."""
    if not any(way.get("CidrIp") in ANYWHERE for way in rule.get("IpRanges", [])):
        return False
    if rule.get("IpProtocol") == "-1":
        return True
    return rule.get("IpProtocol") in ("tcp", "6") and rule.get("FromPort", 0) <= port <= rule.get("ToPort", 65535)
