"""The doctor: all green on a sound account; with each fault exactly its row is red, and its mend is printed."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from baker.config import load
from baker.context import BakeContext, open_context
from baker.display.progress import Display
from baker.doctor import examination
from baker.doctor.finding import FAILS, NOTE, OK, UNKNOWN, Finding
from botocore.credentials import Credentials, RefreshableCredentials
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, DroppingHandler, Fault
from faults.regions import Regions
from faults.test_real_answers import BY_POLICY, ENCODED, TERMS, closed
from localcloud.aws import account as real
from rich.console import Console

SPOT = '[instance]\ntypes = ["g4dn.xlarge"]\nmarkets = ["spot", "on-demand"]\n'
Change = Callable[[Lab], object]


@dataclass(frozen=True)
class Case:
    """A fault, the row that it turns red, a word of its detail, and one of its mend."""

    row: str
    fault: Change
    says: str
    mend: str = ""
    verdict: str = FAILS


def quota(code: str, value: float, service: str = "ec2") -> Change:
    return lambda lab: real.quotas.update({(service, code): value})


def both(*changes: Change) -> Change:
    return lambda lab: [change(lab) for change in changes]


def configured(text: str) -> Change:
    return lambda lab: lab.configure(text)


def routes(change: Callable[[Any, Any], object]) -> Change:
    """Change the default route of the only route table; None as new route: remove it."""

    def fault(lab: Lab) -> None:
        [table] = account.backend().route_tables.values()
        change(account.backend(), table)

    return fault


def no_route(ec2: Any, table: Any) -> None:
    ec2.delete_route(table.id, "0.0.0.0/0")


def private(lab: Lab) -> None:
    for subnet in account.subnets():
        subnet.map_public_ip_on_launch = "false"


def group(*rules: dict[str, Any], ingress: bool = False) -> Change:
    """The shared group, with these egress rules only."""

    def fault(lab: Lab) -> None:
        ec2 = lab.machines.client()
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        made = ec2.create_security_group(GroupName="transcribe-bake", Description="d", VpcId=vpc)["GroupId"]
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        if not ingress:
            ec2.revoke_security_group_egress(GroupId=made, IpPermissions=[everything])
        if rules and ingress:
            ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=list(rules))
        elif rules:
            ec2.authorize_security_group_egress(GroupId=made, IpPermissions=list(rules))

    return fault


def tcp(port: int) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def image(**changes: str) -> Change:
    """The source image is otherwise."""

    def fault(lab: Lab) -> None:
        [found] = account.backend().amis.values()
        for name, value in changes.items():
            setattr(found, name, value)

    return fault


def disk_key(state: str) -> Change:
    """The account's default key for disks is its own, in this state."""

    def fault(lab: Lab) -> None:
        real.disk_key = account.make_key(state)

    return fault


def refused(method: str, status: int, message: str) -> Change:
    """S3 refuses signed requests."""

    def answer(asked: str, path: str) -> tuple[int, bytes] | None:
        return (status, f"<Error><Message>{message}</Message></Error>".encode()) if asked == method else None

    return lambda lab: setattr(lab.cloud, "answers", answer)


def rewritten(call: str, code: str, message: str) -> Change:
    words = f"<Code>{code}</Code><Message>{message}</Message>".encode()

    def rewrites(name: str, form: Any, body: bytes) -> bytes:
        return re.sub(b"<Code>.*</Message>", words, body) if name == call else body

    return lambda lab: setattr(lab.cloud, "rewrites", rewrites)


def unconditional(lab: Lab) -> None:
    """A store that takes no notice of conditions: the second write succeeds as well."""
    lab.cloud.ignores_conditions = True


def index_of_nobody(lab: Lab) -> None:
    lab.patch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")


def elsewhere(*, named: bool) -> Change:
    """The bucket is in another region, and S3 redirects there, without a Location."""

    def fault(lab: Lab) -> None:
        account.bucket_in("eu-west-1")
        lab.cloud.regions = Regions(bucket="eu-west-1", named=named)

    return fault


def clock(minutes: int, code: str = "RequestExpired") -> Change:
    """AWS' clock is so many minutes ahead of this computer's."""

    def fault(lab: Lab) -> None:
        lab.patch.setattr(DroppingHandler, "ahead", minutes * 60.0)
        lab.cloud.log.clear()
        lab.cloud.fault = Fault(DENIED, "GetCallerIdentity", answer=code.encode())

    return fault


def no_vpc(lab: Lab) -> None:
    for subnet in account.subnets():
        subnet.default_for_az = "false"
    for vpc in account.backend().vpcs.values():
        vpc.is_default = "false"


POLICY = "You are not authorized to perform this operation."
CASES = {
    "no G quota, as in new accounts": Case("quota, on-demand", quota("L-DB2E81BA", 0), "0 vCPUs are", "L-DB2E81BA"),
    "G quota too small": Case("quota, on-demand", quota("L-DB2E81BA", 2), "2 vCPUs", "--desired-value 8"),
    "no spot quota": Case(
        "quota, spot", both(configured(SPOT.replace(', "on-demand"', "")), quota("L-3819A6DF", 0)), "0 vCPUs",
        "L-3819A6DF",
    ),
    "no spot quota beside one on demand": Case(
        "quota, spot", both(configured(SPOT), quota("L-3819A6DF", 0)), "a bake takes another type or market",
        "L-3819A6DF", NOTE,
    ),
    "no quota of standard machines": Case(
        "quota, on-demand", both(configured('[instance]\ntypes = ["c5.xlarge"]\n'), quota("L-1216C47A", 1)), "1 vCPUs",
        "L-1216C47A",
    ),
    "no quota of volumes": Case("quota, volumes", quota("L-7A658B76", 0, "ebs"), "0 GiB of gp3", "L-7A658B76"),
    "no quota of images": Case("quota, images", quota("L-B665C33B", 0), "0 are allowed", "prune"),
    "no default route": Case("way out", routes(no_route), "no default route", "[instance] subnets"),
    "no public address": Case("way out", private, "no public address", "--map-public-ip-on-launch"),
    "no egress": Case("security group", group(), "nothing out to port 443 and 80", "authorize-security"),
    "egress to HTTPS only": Case("security group", group(tcp(443)), "to port 80", "authorize-security-group-egress"),
    "ingress": Case("security group", group(tcp(22), ingress=True), "lets connections in; remove its ingress rules"),
    "no such group": Case("security group", configured('[instance]\nsecurity_group = "sg-0"\n'), "no security group"),
    "no default VPC": Case("way out", no_vpc, "no default VPC; name your subnets"),
    "no zone has the type": Case("way out", configured('[instance]\ntypes = ["p9.xlarge"]\n'), "offered in no zone"),
    "no bucket": Case("bucket", lambda lab: account.no_bucket(), "there is no bucket"),
    "bucket elsewhere": Case("bucket", lambda lab: account.bucket_in("eu-west-1"), "is in eu-west-1"),
    "bucket elsewhere, by a 301": Case("bucket", elsewhere(named=True), "is in eu-west-1, and machines", "this region"),
    "bucket elsewhere, and nobody says where": Case("bucket", elsewhere(named=False), "in another region", "region"),
    "the region itself not enabled": Case("identity", closed, "eu-north-1 is not enabled", "aws account enable-region"),
    "clock behind": Case("identity", clock(17), "(RequestExpired)", "clock is 17 minutes behind AWS'"),
    "clock ahead": Case("identity", clock(-9, "SignatureDoesNotMatch"), "Match)", "clock is 9 minutes ahead of AWS'"),
    "clock, by the code": Case("identity", clock(0, "RequestTimeTooSkewed"), "(RequestTimeTooSkewed)", "hwclock"),
    "bucket demands an encryption header": Case(
        "signed addresses", refused("PUT", 403, "Access Denied because of x-amz-server-side-encryption"),
        "S3 answers 403: Access Denied because of", "bucket's policy",
    ),
    "bucket demands TLS": Case("signed addresses", refused("GET", 403, "Access Denied"), "403: Access", "policy"),
    "a store that ignores conditions": Case("bucket write", unconditional, "no lease can be held", "If-None-Match"),
    "no source image": Case("source image", lambda lab: account.no_image(), "there is no image"),
    "source image fails": Case("source image", image(state="failed"), "is failed", "[source]"),
    "Ubuntu 22.04": Case("source image", image(name="ubuntu-jammy-22.04-amd64"), "Python 3.10", "[source]"),
    "Amazon Linux 2023": Case("source image", image(name="al2023-ami-2023.6"), "Python 3.9", "[source]"),
    "source image for ARM": Case("source image", image(architecture="arm64"), "for arm64", "[source]"),
    "default disk key disabled": Case("default disk key", disk_key("Disabled"), "is Disabled", "kms_key"),
    "default disk key gone": Case("default disk key", disk_key("gone"), "not there", "kms_key"),
    "default disk key of the account": Case(
        "default disk key", disk_key("Enabled"), "kms:CreateGrant", "kms_key", NOTE
    ),
    "image key not there": Case(
        "image key", configured('[image]\nkms_key = "alias/none"\n'), "alias/none is not there", "kms_key"
    ),
    "region not enabled": Case("regions", configured('[publish]\nregions = ["xx-none-1"]\n'), "xx-none", "enable"),
    "a service control policy": Case(
        "permissions", rewritten("RunInstances dry", "UnauthorizedOperation", BY_POLICY + ENCODED),
        "service control policy", "ask who administers your organization",
    ),
    "terms that nobody has accepted": Case(
        "permissions", rewritten("RunInstances dry", "OptInRequired", TERMS), "accept terms", "the image's terms",
    ),
    "a request that AWS does not take": Case(
        "permissions", rewritten("RunInstances dry", "InvalidParameterCombination", "cannot be used with"),
        "cannot be used with",
    ),
    "no role for spot": Case(
        "service-linked roles", both(configured(SPOT), lambda lab: account.no_role("AWSServiceRoleForEC2Spot")),
        "AWSServiceRoleForEC2Spot", "spot.amazonaws.com", NOTE,
    ),
    "package index out of reach": Case("package index", index_of_nobody, "does not answer", "--machine", NOTE),
}  # fmt: skip


@pytest.fixture(autouse=True)
def sound(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package index answers, and the source image's name tells what it is."""
    monkeypatch.setenv("PIP_INDEX_URL", lab.cloud_url)
    image(name="debian-12-amd64", state="available", architecture="x86_64")(lab)
    yield
    real.disk_key = "alias/aws/ebs"


def opened(lab: Lab) -> BakeContext:
    return open_context(lab.tree, load(lab.config), Display(Console(quiet=True)))


def examined(lab: Lab) -> list[Finding]:
    return list(examination.whole(opened(lab)))


def rows(findings: Iterable[Finding], verdict: str) -> list[str]:
    return [finding.name for finding in findings if finding.verdict == verdict]


def test_a_sound_account_is_all_green(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    record_property("fault", ("doctor", "none"))
    findings = examined(lab)
    assert [(f.name, f.detail) for f in findings if f.verdict != OK] == []
    assert len(findings) >= 20
    assert account.remains()["instances"] == []


@pytest.mark.parametrize("name", CASES)
def test_a_fault_turns_its_row_red_and_no_other(
    lab: Lab, record_property: Callable[[str, object], None], name: str
) -> None:
    record_property("fault", ("doctor", name))
    case = CASES[name]
    case.fault(lab)
    findings = examined(lab)
    red = [finding for finding in findings if finding.verdict == case.verdict]
    assert {finding.name.partition(", eu-")[0] for finding in red} == {case.row}
    assert all(case.says in finding.detail for finding in red)
    assert all(case.mend in finding.mend for finding in red)
    assert all(finding.mend and "words above" not in finding.mend for finding in red)
    if case.verdict != FAILS:
        assert rows(findings, FAILS) == []


DENIED_CALLS = {
    "DescribeImages by id": {"source image"},
    "DescribeRouteTables": {"way out"},
    "DescribeVpcs": {"security group"},
    "PutObject probe": {"bucket write"},
}


@pytest.mark.parametrize("call", DENIED_CALLS)
def test_what_a_bake_must_see_and_may_not_fails(
    lab: Lab, record_property: Callable[[str, object], None], call: str
) -> None:
    record_property("fault", ("doctor", f"{call} denied"))
    lab.cloud.log.clear()
    lab.cloud.fault = Fault(DENIED, call)
    red = [finding for finding in examined(lab) if finding.verdict == FAILS]
    assert {finding.name for finding in red} == DENIED_CALLS[call]
    assert red[0].detail.startswith(f"AWS denies {call.partition(' ')[0]}")
    assert (red[0].detail.endswith("; a bake needs it"), "plan --policy" in red[0].mend) == (True, True)


def test_what_a_bake_does_without_may_be_denied(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    record_property("fault", ("doctor", "a quota that may not be seen"))
    lab.cloud.log.clear()
    lab.cloud.fault = Fault(DENIED, "DescribeInstanceTypes")
    findings = examined(lab)
    assert rows(findings, FAILS) == []
    assert rows(findings, UNKNOWN) == ["quota, vCPUs"]


@pytest.mark.parametrize(
    ("field", "target"),
    [
        ("coreNetworkArn", "arn:aws:networkmanager::111122223333:core-network/core-network-0a"),
        ("localGatewayId", "lgw-0a"),
        ("carrierGatewayId", "cagw-0a"),
    ],
)
def test_a_default_route_may_lead_to_a_wide_area_network_or_an_outpost(
    lab: Lab, record_property: Callable[[str, object], None], field: str, target: str
) -> None:
    record_property("fault", ("doctor", f"a route by {field}"))
    private(lab)
    lab.cloud.rewrites = lambda name, form, body: (
        re.sub(b"<gatewayId>igw-[^<]*</gatewayId>", f"<{field}>{target}</{field}>".encode(), body)
        if name == "DescribeRouteTables"
        else body
    )
    ways = [finding for finding in examined(lab) if finding.name.startswith("way out")]
    assert {finding.verdict for finding in ways} == {OK}
    assert all(target in finding.detail for finding in ways)


@pytest.mark.parametrize(
    ("credentials", "verdict", "says"),
    [
        (None, FAILS, "there are none"),
        (Credentials("ASIA", "s", "token", method="env"), NOTE, "nothing tells when it ends"),
        (("env", 30), FAILS, "may need them until"),
        (("env", 300), OK, "until"),
        (("sso", 30), OK, "renewed by themselves"),
        (("assume-role", 30), OK, "renewed by themselves"),
    ],
)
def test_credentials_must_live_as_long_as_a_machine(
    lab: Lab, record_property: Callable[[str, object], None], credentials: Any, verdict: str, says: str
) -> None:
    record_property("fault", ("doctor", "credentials"))
    lab.configure_deadline(90)
    if isinstance(credentials, tuple):
        method, minutes = credentials
        end = datetime.now(UTC) + timedelta(minutes=minutes)
        credentials = RefreshableCredentials("ASIA", "s", "token", end, refresh_using=dict, method=method)
    context = opened(lab)
    clients = replace(context.clients, credentials=credentials)
    context = replace(context, clients_in=lambda region: clients)
    [found] = [f for f in examination.free(context) if f.name == "credentials"]
    assert (found.verdict, says in found.detail) == (verdict, True)


@pytest.mark.parametrize(
    ("code", "mend"), {"ExpiredToken": "log in again", "OptInRequired": "finish its sign-up"}.items()
)
def test_keys_or_an_account_that_are_refused_are_one_row(
    lab: Lab, record_property: Callable[[str, object], None], code: str, mend: str
) -> None:
    """A new account is refused by everything but STS until its sign-up is complete."""
    record_property("fault", ("doctor", "keys refused"))
    lab.cloud.log[:] = ["from the beginning"]
    lab.cloud.expires, lab.cloud.expired = "from the beginning", code
    [red] = [finding for finding in examined(lab) if finding.verdict == FAILS]
    assert (mend in red.mend, red.mend in red.detail) == (True, False)


def test_the_command_prints_rows_and_mends_and_json(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    record_property("fault", ("doctor", "the command"))
    quota("L-DB2E81BA", 0)(lab)
    ended = lab.launch("doctor")
    assert ended.code == 1
    assert "bake: 1 of " in ended.err
    assert "request-service-quota-increase" in ended.out.replace("\n", "")
    document = json.loads(lab.launch("doctor", "--json").out)
    assert [row["name"] for row in document["findings"] if row["verdict"] == FAILS] == ["quota, on-demand"]
    ended = lab.launch("plan")
    assert (ended.code, "quota, on-demand: 0 vCPUs are allowed" in ended.err) == (2, True)
