"""A plan: everything resolved, everything asked, nothing made."""

import json
from types import SimpleNamespace
from typing import cast

import boto3
from baker.aws import pricing
from baker.aws.client import Clients
from baker.config import from_mapping
from baker.inputs import pillar
from botocore.stub import Stubber
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, Fault
from localcloud.aws import account as real
from support.project_tree import PROJECT

PRODUCT = {
    "terms": {
        "OnDemand": {
            "X.Y": {"priceDimensions": {"X.Y.Z": {"unit": "Hrs", "pricePerUnit": {"USD": "0.5580000000"}}}},
        },
        "Reserved": {"R": {"priceDimensions": {"R.Z": {"unit": "Hrs", "pricePerUnit": {"USD": "0.1"}}}}},
    }
}  # fmt: skip


def test_a_plan_tells_places_cost_and_permissions_and_makes_nothing(lab: Lab) -> None:
    lab.configure('[prices]\n"g4dn.xlarge" = 0.6\n')
    ended = lab.launch("plan")
    assert ended.code == 0, ended.err
    told = " ".join(ended.out.split())
    assert "g4dn.xlarge in eu-north-1a, g4dn.xlarge in eu-north-1b, g4dn.xlarge in eu-north-1c" in told
    assert "$0.02 for two machines to their deadlines; $0.06 if AWS takes each away 2 times" in told
    assert "allowed RunInstances" in told.replace("CreateSecurityGroup, ", "")
    assert "would make the first image" in told
    lab.assert_left(images=0)
    assert account.remains()["groups"] == []
    assert account.keys("") == []


def test_a_price_that_nobody_knows_is_no_reason_to_fail(lab: Lab) -> None:
    ended = lab.launch("plan")
    assert (ended.code, "set [prices]" in ended.out) == (0, True)


def test_a_rate_for_disks_is_told_since_it_costs(lab: Lab) -> None:
    lab.configure("[instance]\ninitialization_rate = 200\n")
    assert "fetched at 200 MiB/s, for which EBS charges" in " ".join(lab.launch("plan").out.split())


def test_a_clip_in_another_language_than_the_model_listens_for_is_refused(lab: Lab) -> None:
    lab.configure('[pillar.model]\nlanguage = "de"\n')
    ended = lab.launch("plan")
    assert "the model listens for 'de' and the verification clip is in 'en'; set clip, language" in ended.err
    assert ended.code == 2


def test_the_pillar_verifies_in_the_language_that_its_model_listens_for() -> None:
    declared = pillar.load(PROJECT)
    assert declared["model"]["language"] == declared["verify"]["language"] == "sv"
    assert (PROJECT / "service/clips" / declared["verify"]["clip"]).is_file()
    assert "Sverige" in (PROJECT / "service/clips" / declared["verify"]["reference"]).read_text()


def test_missing_permissions_are_named_together(lab: Lab) -> None:
    ended = lab.launch("plan", fault=Fault(DENIED, "RunInstances dry"))
    [line] = ended.err.strip().splitlines()
    assert line.startswith("bake: AWS denies you ec2:RunInstances; `bake.py plan --policy` prints")
    assert ended.code == 2


def test_a_market_without_quota_is_no_reason_to_fail_beside_one_that_has_it(lab: Lab) -> None:
    lab.configure('[instance]\ntypes = ["g4dn.xlarge"]\nmarkets = ["spot", "on-demand"]\n')
    real.quotas["ec2", "L-3819A6DF"] = 0
    ended = lab.launch("plan")
    assert (ended.code, "quota, spot: 0 vCPUs are allowed" in " ".join(ended.out.split())) == (0, True), ended.err
    real.quotas["ec2", "L-DB2E81BA"] = 0
    ended = lab.launch("plan")
    assert (ended.code, "quota, spot: 0 vCPUs" in ended.err, "quota, on-demand: 0 vCPUs" in ended.err) == (
        2,
        True,
        True,
    )


def test_an_earlier_image_is_asked_about(lab: Lab) -> None:
    lab.launch("bake")
    out = lab.launch("plan").out
    told = " ".join(out.split())
    assert "CreateTags, DeregisterImage, DeleteSnapshot" in told.partition("unknown")[0]
    lab.assert_left(images=1)


def test_aws_price_list_is_read(lab: Lab) -> None:
    client = boto3.Session(region_name="us-east-1").client("pricing")
    with Stubber(client) as stub:  # checks request and answer against the service's model
        stub.add_response("get_products", {"PriceList": [json.dumps(PRODUCT)]})
        clients = SimpleNamespace(pricing=client)
        config = from_mapping({"aws": {"region": "eu-north-1"}, "s3": {"bucket": "b"}, "source": {"ami": "ami-1"}})
        assert pricing.Prices(cast(Clients, clients)).hourly(config) == {"g4dn.xlarge": 0.558}
