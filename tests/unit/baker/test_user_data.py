"""User-data: what a machine is told, within EC2's limit; and what a machine is asked to be."""

import base64
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
import yaml
from baker.aws import requests
from baker.aws.client import connect
from baker.aws.s3 import Bucket
from baker.bake.acceptance import BAKE
from baker.bake.attempt import MachineAttempt, new_bake_name, parameters
from baker.config import SPOT, from_mapping
from baker.errors import UsageError
from baker.inputs import user_data
from baker.inputs.payload import Payload
from support.project_tree import PROJECT, make_tree, write

pytestmark = pytest.mark.slow

PARAMETERS = {"build_id": "b1", "nonce": "n", "deadline_seconds": 600, "report_url": "https://s3/?a=1&b='\"$x\n"}
CONFIG = from_mapping({"aws": {"region": "eu-north-1"}, "s3": {"bucket": "b" * 63}, "source": {"ami": "ami-1"}})


def decoded(text: str, path: str) -> bytes:
    files = {file["path"]: file for file in yaml.safe_load(text)["write_files"]}
    return gzip.decompress(base64.b64decode(files[path]["content"]))


def test_values_come_through_whatever_they_hold(tmp_path: Path) -> None:
    text = user_data.render(make_tree(tmp_path), PARAMETERS)
    assert text.startswith("#cloud-config\n")
    assert json.loads(decoded(text, "/run/transcribe-bake/parameters.json")) == PARAMETERS
    assert decoded(text, "/run/transcribe-bake/bootstrap.sh") == (tmp_path / user_data.BOOTSTRAP).read_bytes()


@pytest.mark.parametrize("characters", [0, 400, 1_400, 2_000, 4_096])
def test_the_user_data_stays_within_the_limit_for_any_session_token(
    characters: int, record_property: Callable[[str, object], None]
) -> None:
    token = base64.b64encode(random.Random(1).randbytes(4_096)).decode()[:characters]
    clients = connect(CONFIG, boto3.Session("ASIA" + "X" * 16, "s" * 40, token or None, region_name="eu-north-1"))
    tried = MachineAttempt(new_bake_name(), BAKE, CONFIG.s3.prefix)
    packed = Payload(b"x", {}, {})
    origin = {"git_commit": "0" * 40, "content_hash": "0" * 64, "source_name": "Deep Learning Base OSS " * 3}
    text = user_data.render(PROJECT, parameters(tried, Bucket(clients, "b" * 63), 5_400, payload=packed, origin=origin))
    record_property("bytes", len(text.encode()))
    print(f"a token of {characters} characters: {len(text.encode()):,} bytes")
    assert len(text.encode()) <= user_data.LIMIT
    document = yaml.safe_load(text)
    assert "5400" in json.dumps(document["bootcmd"])
    assert {file["permissions"] for file in document["write_files"]} <= {"0600", "0700"}
    assert all(file["path"].startswith("/run/") for file in document["write_files"])


def test_more_than_ec2_takes_is_refused_with_both_numbers(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    fixed = len(user_data.render(tree, PARAMETERS).encode())
    write(tree / "cloud-init/user-data.yaml", (tree / "cloud-init/user-data.yaml").read_text() + "#" * (16_384 - fixed))
    assert len(user_data.render(tree, PARAMETERS).encode()) == user_data.LIMIT
    write(tree / "cloud-init/user-data.yaml", (tree / "cloud-init/user-data.yaml").read_text() + "#")
    with pytest.raises(UsageError, match=r"would be 16,385 bytes; EC2 takes 16,384"):
        user_data.render(tree, PARAMETERS)


def test_a_template_that_asks_for_more_is_named(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    write(tree / "cloud-init/user-data.yaml", "#cloud-config\n${colour}\n")
    with pytest.raises(UsageError, match=r"user-data\.yaml asks for a value .*colour"):
        user_data.render(tree, PARAMETERS)


SPEC = requests.MachineSpec("ami-1", "/dev/xvda", 50, "sg-1", "#cloud-config\n", {"project": "p"})


def test_a_machine_is_closed_encrypted_tagged_and_ends_itself() -> None:
    request = requests.run_request(SPEC, requests.Place("g4dn.xlarge", "subnet-1", "eu-north-1a"), "token")
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert request["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    [disk] = request["BlockDeviceMappings"]
    assert disk == {
        "DeviceName": "/dev/xvda",
        "Ebs": {"VolumeSize": 50, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
    }
    assert [s["ResourceType"] for s in request["TagSpecifications"]] == ["instance", "volume"]
    assert request["ClientToken"] == "token"
    assert request["SubnetId"] == "subnet-1"
    assert not {"KeyName", "IamInstanceProfile", "InstanceMarketOptions"} & set(request)


def test_a_spot_machine_is_not_started_again_when_it_ends() -> None:
    request = requests.run_request(SPEC, requests.Place("g4dn.xlarge", "s", "z", SPOT), "token")
    options = request["InstanceMarketOptions"]["SpotOptions"]
    assert options == {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
