"""The policy against AWS's Service Authorization Reference: actions, resources, condition keys, dependent actions.

authorization_reference.json is the part of the reference about the launcher's actions; its `source` says where it is
from.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from baker.aws import iam_policy
from baker.config import from_mapping

REFERENCE = json.loads(Path(__file__).with_name("authorization_reference.json").read_text())["actions"]
LIMIT = 6_144  # characters of a managed policy, without white space
CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "machine": {"fleet": {"queue": "speech", "bucket": "my.recordings"}},
    "queues": {"fleet": {"queue": "speech"}},
    "submitter": {"fleet": {"queue": "speech"}},
    "roll": {"fleet": {"queue": "speech"}},
    "all": {
        "fleet": {"queue": "speech", "profile": "fleet"},
        "image": {"kms_key": "alias/images"},
        "s3": {"bucket": "my.bucket", "encryption": "aws:kms", "kms_key": "alias/objects"},
        "publish": {"regions": ["eu-west-1"]},
        "instance": {"profile": "look"},
        "source": {"ssm_parameter": "/aws/service/x/latest/ami-id"},
    },
}
BEYOND = (
    "spot-instances-request"  # EC2's user guide names it for RunInstances in the spot market; the reference does not
)
# Dependent actions that the launcher's use of an action does not need.
NOT_NEEDED = {
    "iam:PassRole",  # no machine has a role
    "autoscaling:DescribeAccountLimits", "cloudformation:DescribeAccountLimits", "dynamodb:DescribeLimits",
    "elasticloadbalancing:DescribeAccountLimits", "iam:GetAccountSummary", "kinesis:DescribeLimits",
    "rds:DescribeAccountAttributes", "route53:GetAccountLimit",  # of GetServiceQuota, about those services' quotas
}  # fmt: skip


@cache
def policy(name: str) -> dict[str, Any]:
    base = {"aws": {"region": "eu-north-1"}, "s3": {"bucket": "my.bucket"}, "source": {"ami": "ami-1"}}
    config = from_mapping({**base, **CONFIGS[name]})
    role = name if name in iam_policy.ROLES else iam_policy.LAUNCHER
    return iam_policy.document(config, iam_policy.calls_of(role))


def granted(name: str) -> Iterator[tuple[str, str, list[str]]]:
    """Every action with each resource and the condition keys of its statement."""
    for statement in policy(name)["Statement"]:
        keys = [key for test in statement.get("Condition", {}).values() for key in test]
        for action in statement["Action"]:
            for resource in statement["Resource"]:
                yield action, resource, keys


@cache
def fits(resource: str, arn: str) -> bool:
    """Whether a resource of ours can name what the reference's ARN names; `*` and variables stand for anything."""
    ours, theirs = resource.split(":", 5), re.sub(r"\$\{[^}]*\}", "*", arn).split(":", 5)
    if ours[2] != theirs[2]:
        return False
    return any(matcher(b).match(a.replace("*", "x")) for a, b in ((ours[5], theirs[5]), (theirs[5], ours[5])))


@cache
def matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_action_and_resource_exists(name: str) -> None:
    for action, resource, _ in granted(name):
        assert action in REFERENCE, action
        kinds = REFERENCE[action]["resources"].values()
        if resource != "*" and BEYOND not in resource:
            assert any(fits(resource, kind["arn"]) for kind in kinds), f"{action} is never asked about {resource}"


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_condition_key_is_one_that_the_action_carries(name: str) -> None:
    for action, resource, keys in granted(name):
        entry = REFERENCE[action]
        kinds = [kind for kind in entry["resources"].values() if resource != "*" and fits(resource, kind["arn"])]
        known = {key.partition("$")[0] for found in (entry, *kinds) for key in found["conditions"]}
        for key in keys:
            assert any(key == name or (name.endswith("/") and key.startswith(name)) for name in known), (action, key)


@pytest.mark.parametrize("name", CONFIGS)
def test_dependent_actions_are_allowed_too(name: str) -> None:
    allowed = {action for action, _, _ in granted(name)}
    needed = {dependent for action in allowed for dependent in REFERENCE[action]["dependent"]}
    assert needed - allowed <= NOT_NEEDED


@pytest.mark.parametrize("name", CONFIGS)
def test_the_policy_is_within_iams_limit(name: str) -> None:
    size = len(json.dumps(policy(name), separators=(",", ":")))
    print(f"{name}: {size} characters")
    assert size <= LIMIT
