"""Answers that AWS documents and that are rarer: of routes, groups, keys and quotas. The doctor's verdict on each."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from baker.doctor.finding import FAILS, OK, UNKNOWN
from faults import test_doctor
from faults.conftest import Lab
from faults.faultcloud import DENIED, Fault
from faults.test_doctor import examined, group, image, private

sound = test_doctor.sound
HALVES = [{"CidrIp": "0.0.0.0/1"}, {"CidrIp": "128.0.0.0/1"}]
HTTP_AND_MORE = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}
REFUSALS = {  # what is refused with which code: the row, its verdict, and a word of the mend
    ("PutObject probe", "KMS.DisabledException"): ("bucket write", FAILS, "the state of its key"),
    ("PutObject probe", "InvalidRequest"): ("bucket write", FAILS, "object lock"),
    ("DescribeSubnets", "InvalidSubnetID.NotFound"): ("way out", FAILS, "[instance] subnets"),
    ("DescribeImages by id", "InvalidAMIID.Malformed"): ("source image", FAILS, "[source]"),
    ("DescribeInstanceTypes", "InvalidInstanceType"): ("quota, vCPUs", UNKNOWN, "look again later"),
    ("DescribeInstanceTypes", "Unavailable"): ("quota, vCPUs", UNKNOWN, "look again later"),
    ("GetEbsDefaultKmsKeyId", "UnauthorizedOperation"): ("default disk key", UNKNOWN, "plan --policy"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "code"), REFUSALS)
def test_what_is_refused_is_a_row(
    lab: Lab, record_property: Callable[[str, object], None], call: str, code: str
) -> None:
    record_property("fault", ("doctor", f"{call}: {code}"))
    lab.cloud.log.clear()
    lab.cloud.fault = Fault(DENIED, call, answer=code.encode())
    row, verdict, mend = REFUSALS[call, code]
    wrong = [finding for finding in examined(lab) if finding.verdict != OK and "not looked at" not in finding.detail]
    assert [(finding.name, finding.verdict, code in finding.detail) for finding in wrong] == [(row, verdict, True)]
    assert mend in wrong[0].mend


ROUTES = {  # what stands for the gateway of the default route; whether S3 is said to have an endpoint of its own
    "a transit gateway": (b"<transitGatewayId>tgw-1</transitGatewayId>", "tgw-1"),
    "a firewall's endpoint": (b"<gatewayId>vpce-0abc</gatewayId>", "vpce-0abc"),
    "a NAT instance": (b"<instanceId>i-1</instanceId><networkInterfaceId>eni-1</networkInterfaceId>", "eni-1"),
    "a virtual private gateway": (b"<gatewayId>vgw-1</gatewayId>", "vgw-1"),
}


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("name", ROUTES)
def test_a_default_route_may_lead_elsewhere_and_come_in_two_halves(
    lab: Lab, record_property: Callable[[str, object], None], name: str, halves: bool
) -> None:
    record_property("fault", ("doctor", f"a route by {name}"))
    private(lab)
    text, target = ROUTES[name]

    def changed(call: str, form: Any, body: bytes) -> bytes:
        if call != "DescribeRouteTables":
            return body
        body = re.sub(b"<gatewayId>igw-[^<]*</gatewayId>", text, body)
        return body.replace(b"0.0.0.0/0", b"0.0.0.0/1") if halves else body

    lab.cloud.rewrites = changed
    ways = [finding for finding in examined(lab) if finding.name.startswith("way out")]
    assert {finding.verdict for finding in ways} == {OK}
    assert all(finding.detail.endswith(f"by {target}") for finding in ways), "S3 has no endpoint here"


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ({**HTTP_AND_MORE, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, OK),
        ({"IpProtocol": "-1", "IpRanges": HALVES}, OK),
        ({**HTTP_AND_MORE, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}, FAILS),
        ({**HTTP_AND_MORE, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}, FAILS),
    ],
)
def test_a_group_may_let_everything_out_in_other_words(
    lab: Lab, record_property: Callable[[str, object], None], rule: dict[str, Any], verdict: str
) -> None:
    record_property("fault", ("doctor", "egress in other words"))
    group(rule)(lab)
    assert [finding.verdict for finding in examined(lab) if finding.name == "security group"] == [verdict]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("suse-sles-15-sp6-v20260101-hvm-ssd-x86_64", "without apt"),
        ("fedora-cloud-base-43", "without apt"),
        ("bottlerocket-aws-ecs-2-nvidia-x86_64-v1", "without apt"),
        ("ubuntu/images/hvm-ssd/ubuntu-bionic-18.04-amd64-server-20230607", "Python 3.6"),
        ("Deep Learning OSS Nvidia Driver AMI GPU PyTorch 2.7 (Ubuntu 22.04) 20260101", "Python 3.10"),
        ("debian-bullseye-amd64", "Python 3.9"),
    ],
)
def test_a_source_image_that_the_locks_do_not_serve_fails(
    lab: Lab, record_property: Callable[[str, object], None], name: str, says: str
) -> None:
    record_property("fault", ("doctor", "a source image of another system"))
    image(name=name)(lab)
    [red] = [finding for finding in examined(lab) if finding.verdict == FAILS]
    assert (red.name, says in red.detail) == ("source image", True)
