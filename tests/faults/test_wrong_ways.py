"""What an operator gets wrong: one line that says what, where and the fix; exit code 2; nothing is made."""

from collections.abc import Callable
from typing import Any

import pytest
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, INTERRUPTED, Fault


def no_credentials(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("AWS_ACCESS_KEY_ID")
    patch.delenv("AWS_SECRET_ACCESS_KEY")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    patch.setenv("AWS_CONFIG_FILE", "/nonexistent")


def rewritten(before: str, after: str) -> Callable[[Lab, pytest.MonkeyPatch], None]:
    def change(lab: Lab, patch: pytest.MonkeyPatch) -> None:
        text = lab.config.read_text()
        assert before in text
        lab.config.write_text(text.replace(before, after))

    return change


def region_that_is_none(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    """AWS itself, whose name for this region does not resolve anywhere."""
    lines = lab.config.read_text().replace("eu-north-1", "eu-nowhere-9").splitlines()
    lab.config.write_text("\n".join(line for line in lines if "endpoint_url" not in line))


def no_default_vpc(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    for subnet in [s for zone in account.backend().subnets.values() for s in zone.values()]:
        account.backend().delete_subnet(subnet.id)


def unknown_profile(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    rewritten("[aws]", '[aws]\nprofile = "nobody"')(lab, patch)


def unknown_profile_of_the_environment(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_PROFILE", "nobody")


CASES: dict[str, tuple[Callable[[Lab, pytest.MonkeyPatch], None], str]] = {
    "no credentials": (no_credentials, "no credentials; set AWS_PROFILE or [aws] profile, or log in"),
    "unknown profile": (unknown_profile, "[aws] profile 'nobody' is not in your AWS configuration; `aws configure"),
    "unknown AWS_PROFILE": (unknown_profile_of_the_environment, "bake: AWS_PROFILE 'nobody' is not in your AWS config"),
    "another region": (rewritten('"eu-north-1"', '"eu-west-1"'), "[source] there is no image ami-"),
    "malformed region": (rewritten('"eu-north-1"', '"eu north"'), "Provided region_name 'eu north' doesn't match"),
    "malformed address": (rewritten('"http', '"'), "[aws] endpoint_url must be such as https://example.org"),
    "no such region": (region_that_is_none, "cannot reach https://ec2.eu-nowhere-9.amazonaws.com/; check [aws] region"),
    "TLS that is not to be trusted": (rewritten('"http:', '"https:'), "its certificates in AWS_CA_BUNDLE"),
    "missing bucket": (rewritten('"bakes"', '"no-such-bucket"'), "[s3] there is no bucket 'no-such-bucket'"),
    "unknown key": (rewritten("[aws]", "[aws]\nregoin = 1"), "[aws] has an unknown key 'regoin'"),
    "unknown section": (rewritten("[bake]", "[beak]"), "unknown section [beak]"),
    "bad TOML": (rewritten("[aws]", "[aws"), "not valid TOML"),
    "no default VPC": (no_default_vpc, "no default VPC; name your subnets in [instance] subnets"),
    "unknown subnet": (
        rewritten("[bake]", '[instance]\nsubnets = ["subnet-0123456789abcdef0"]\n[bake]'),
        "(InvalidSubnetID.NotFound); name subnets of this region in [instance] subnets",
    ),
    "disk too small": (
        rewritten("[bake]", "[instance]\nvolume_gb = 5\n[bake]"), "[instance] volume_gb is 5; the source image ami-",
    ),
    "a bucket's address": (rewritten('"bakes"', '"s3://bakes/here"'), "[s3] bucket must be the name of a bucket"),
    "unknown type": (
        rewritten("[bake]", '[instance]\ntypes = ["g9.xlarge"]\n[bake]'), "g9.xlarge are offered in no zone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", ["plan", "bake"])
@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_one_line_and_makes_nothing(
    lab: Lab, record_property: Any, monkeypatch: pytest.MonkeyPatch, case: str, command: str
) -> None:
    record_property("fault", ("operator", case))
    change, words = CASES[case]
    change(lab, monkeypatch)
    ended = lab.launch(command)
    [line] = ended.err.strip().splitlines()
    assert words in line
    assert ended.code == 2
    assert_nothing_made(lab)


@pytest.mark.parametrize("code", ["RequestExpired", "ExpiredToken", "AuthFailure"])
def test_an_expired_session_says_so(lab: Lab, record_property: Any, code: str) -> None:
    record_property("fault", ("operator", "expired session"))
    ended = lab.launch("bake", fault=Fault(DENIED, "DescribeImages by id", answer=code.encode()))
    [line] = ended.err.strip().splitlines()
    assert "log in again" in line
    assert ended.code == 2
    assert_nothing_made(lab)


@pytest.mark.parametrize("command", ["plan", "bake"])
def test_a_bucket_of_somebody_else_is_told_with_what_to_name(lab: Lab, record_property: Any, command: str) -> None:
    record_property("fault", ("operator", "a bucket of somebody else"))
    ended = lab.launch(command, fault=Fault(DENIED, "HeadBucket"))
    [line] = ended.err.strip().splitlines()
    assert (ended.code, "'bakes' is not yours to use: name one of your account in [s3] bucket" in line) == (2, True)
    assert_nothing_made(lab)


@pytest.mark.parametrize(
    "command",
    [
        "status", "resume", "reap", "reap --yes", "list", "publish", "rollback", "prune", "diff a b", "launch",
        "launch --end",
    ],
)  # fmt: skip
def test_every_command_needs_to_know_who_asks(
    lab: Lab, record_property: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    record_property("fault", ("operator", "no credentials"))
    no_credentials(lab, monkeypatch)
    ended = lab.launch(*command.split())
    [line] = ended.err.strip().splitlines()
    assert (ended.code, "no credentials; set AWS_PROFILE" in line) == (2, True), line


INTERRUPTS = {  # of other commands than a bake: the call, and what the line says of what became of it
    "plan": ("RunInstances dry", "nothing was made"),
    "doctor": ("PutObject probe", "what it had made is gone"),
    "doctor --machine": ("RunInstances", "what it had made is gone"),
    "doctor --machine --json": ("GetObject progress.json", "what it had made is gone"),
    "launch": ("RunInstances", "`bake.py launch --end` removes what it had begun"),
    "launch --end": ("TerminateInstances", "`bake.py launch --end` removes what it had begun"),
    "reap --yes": ("DescribeVolumes", "running the same command again continues it"),
}


@pytest.mark.parametrize("command", INTERRUPTS)
def test_ctrl_c_is_one_line_that_says_what_became_of_it(lab: Lab, record_property: Any, command: str) -> None:
    record_property("fault", ("operator", "Ctrl-C"))
    lab.patch.setenv("PIP_INDEX_URL", lab.cloud_url)
    serves = command.startswith("launch")
    for before in ("bake", "publish", "launch")[: 3 if command == "launch --end" else 2 if serves else 0]:
        assert lab.launch(before).code == 0
    call, became = INTERRUPTS[command]
    fault = Fault(INTERRUPTED, call)
    ended = lab.launch(*command.split(), fault=fault)
    assert (ended.code, ended.err.strip().splitlines()[-1]) == (1, f"bake: interrupted by SIGINT; {became}")
    assert (fault.hits, "Traceback" in ended.err) == (1, False)
    if serves:
        assert lab.launch("launch", "--end").code == 0
    lab.assert_left(images=int(serves))


def assert_nothing_made(lab: Lab) -> None:
    lab.assert_left(images=0)
    assert account.keys("") == []
    assert account.backend().all_instances() == []
