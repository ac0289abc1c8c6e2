"""Whether machines can reach what a bake needs from where they would run."""

from collections.abc import Iterator, Sequence

from baker.aws.account import Account
from baker.aws.requests import Place
from baker.aws.routes import Routes, WayOut
from baker.config import SPOT
from baker.context import BakeContext
from baker.doctor.finding import FAILS, NOTE, OK, Finding, found

NO_ROUTE = "give its route table a default route to an internet or NAT gateway, or name another in [instance] subnets"
NO_ADDRESS = "aws ec2 modify-subnet-attribute --map-public-ip-on-launch --subnet-id ID, or a route to a NAT gateway"
ROLES = {
    "AWSServiceRoleForAutoScaling": "autoscaling",
    "AWSServiceRoleForElasticLoadBalancing": "elasticloadbalancing",
    "AWSServiceRoleForEC2Spot": SPOT,
}


def places(context: BakeContext, wanted: Sequence[Place]) -> Iterator[Finding]:
    """For each subnet: the way to S3, pip's index, the package mirrors and the model hub."""
    zones = {place.subnet: place.zone for place in wanted}
    for way in Routes(context.clients).ways_out(zones):
        name = f"way out, {zones[way.subnet]}"
        bad, mend = _obstacle(way)
        beside = " (S3 has an endpoint of its own)" if way.s3_endpoint else ""
        if bad:
            yield Finding(name, FAILS, f"{way.subnet}: {bad}{beside}", mend)
        else:
            yield Finding(name, OK, f"{way.subnet} by {way.gateway}{beside}")


def _obstacle(way: WayOut) -> tuple[str, str]:
    """Why nothing can be reached, and the mend; both empty if it can."""
    if way.internet:
        return "", ""
    if not way.gateway:
        return "no default route: pip, apt and the model hub are out of reach", NO_ROUTE
    if way.blackhole:
        return f"its default route leads to {way.gateway}, which is gone", NO_ROUTE
    return "it has an internet gateway, but its machines get no public address", NO_ADDRESS


def group(context: BakeContext) -> Iterator[Finding]:
    """What the security group lets out; one that is still to be made lets everything out."""
    existing, _ = context.networks.present_group(context.config.instance)
    if not existing:
        yield Finding("security group", OK, "is made with the first bake: nothing in, everything out")
        return
    blocked = Routes(context.clients).blocked_ports(existing)
    ports = " and ".join(map(str, blocked))
    mend = f"aws ec2 authorize-security-group-egress --group-id {existing} --protocol tcp --port PORT --cidr 0.0.0.0/0"
    yield found("security group", f"{existing} lets nothing out to port {ports}" if ports else "", existing, mend)


def regions(context: BakeContext) -> Iterator[Finding]:
    """That the regions of the configuration are enabled."""
    wanted = [context.config.aws.region, *context.config.publish.regions]
    off = [name for name, on in Account(context.clients).opted_in(wanted).items() if not on]
    mend = "aws account enable-region --region-name NAME, or leave it out of [publish] regions"
    yield found("regions", f"not enabled for this account: {', '.join(off)}" if off else "", ", ".join(wanted), mend)


def roles(context: BakeContext) -> Iterator[Finding]:
    """Roles that services of AWS need in the account; each is made at the service's first use, if one may."""
    account, config = Account(context.clients), context.config
    markets = {*config.instance.markets, *config.launch.markets}
    wanted = {name: service for name, service in ROLES.items() if service != SPOT or SPOT in markets}
    lacking = [name for name in wanted if not account.has_role(name)]
    if not lacking:
        yield Finding("service-linked roles", OK, ", ".join(wanted.values()))
        return
    detail = f"not there yet: {', '.join(lacking)}; the first use makes them, if you may (iam:CreateServiceLinkedRole)"
    make = "aws iam create-service-linked-role --aws-service-name"
    mend = "; ".join(f"{make} {wanted[name]}.amazonaws.com" for name in lacking)
    yield Finding("service-linked roles", NOTE, detail, mend)
