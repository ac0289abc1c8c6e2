"""How accounts and computers are set up: profiles, credentials that renew themselves, endpoints, bucket names."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from baker.aws import requests
from baker.aws.client import connect, open_session
from baker.aws.s3 import Bucket
from baker.config import LauncherConfig, from_mapping
from baker.errors import UsageError


def config(bucket: str = "bakes", **aws: str) -> LauncherConfig:
    return from_mapping({"aws": {"region": "eu-north-1", **aws}, "s3": {"bucket": bucket}, "source": {"ami": "ami-1"}})


def opened(wanted: LauncherConfig) -> Bucket:
    return Bucket(connect(wanted, open_session(wanted)), wanted.s3.bucket)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.parametrize(
    ("bucket", "start"),
    [
        ("bakes", "https://bakes.s3.eu-north-1.amazonaws.com/k?"),
        ("our.bakes", "https://s3.eu-north-1.amazonaws.com/our.bakes/k?"),  # no certificate fits a name with dots
    ],
)
def test_a_bucket_is_addressed_so_that_its_certificate_fits(bucket: str, start: str) -> None:
    assert opened(config(bucket)).url("k", "GET", 60).startswith(start)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_of_the_environment_has_the_bucket_in_its_path(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://localhost:9000")
    assert opened(config()).url("k", "PUT", 60).startswith("http://localhost:9000/bakes/k?")


def test_credentials_of_a_profile_are_renewed_while_a_bake_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program, as for a login by SSO or a role: botocore asks again before they end."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    given = tmp_path / "given.json"
    script = tmp_path / "credentials.py"
    script.write_text(f"print(open({str(given)!r}).read())")
    (tmp_path / "config").write_text(f"[profile baker]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    def give(key: str) -> None:
        end = (datetime.now(UTC) + timedelta(minutes=12)).isoformat()
        same = {"Version": 1, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": end}
        given.write_text(json.dumps({**same, "AccessKeyId": key}))

    give("ASIAFIRST")
    bucket = opened(config(profile="baker"))
    assert bucket.signer() == "ASIAFIRST"
    give("ASIASECOND")
    assert bucket.signer() == "ASIASECOND"
    assert "ASIASECOND" in bucket.url("k", "GET", 60)


def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"\[aws\] profile 'nobody' is not in your AWS configuration"):
        open_session(config(profile="nobody"))


def test_a_machine_has_a_role_and_a_rate_only_where_they_are_named() -> None:
    plain = requests.MachineSpec("ami-1", "/dev/xvda", 50, "sg-1", "#cloud-config\n", {})
    place = requests.Place("g4dn.xlarge", "subnet-1", "eu-north-1a")
    assert "IamInstanceProfile" not in requests.run_request(plain, place, "t")
    rich = requests.MachineSpec("ami-1", "/dev/xvda", 50, "sg-1", "x", {}, profile="look", initialization_rate=200)
    request = requests.run_request(rich, place, "t")
    assert request["IamInstanceProfile"] == {"Name": "look"}
    assert request["BlockDeviceMappings"][0]["Ebs"]["VolumeInitializationRate"] == 200


@pytest.mark.parametrize(("rate", "good"), [(0, True), (50, False), (100, True), (300, True), (301, False)])
def test_a_rate_is_one_that_ebs_takes(rate: int, good: bool) -> None:
    document = {
        "aws": {"region": "r"}, "s3": {"bucket": "b"}, "source": {"ami": "a"}, "instance": {"initialization_rate": rate}
    }  # fmt: skip
    if good:
        assert from_mapping(document).instance.initialization_rate == rate
        return
    with pytest.raises(UsageError, match="initialization_rate"):
        from_mapping(document)
