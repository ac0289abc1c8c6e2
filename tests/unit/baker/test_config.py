"""bake.toml and the pillar's overrides: whatever is wrong is named in one line."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from baker import config
from baker.errors import UsageError
from baker.inputs import pillar
from support.project_tree import PILLAR, PROJECT

GOOD: dict[str, Any] = {"aws": {"region": "eu-north-1"}, "s3": {"bucket": "b"}, "source": {"ami": "ami-1"}}


def changed(section: str, **keys: Any) -> dict[str, Any]:
    document = deepcopy(GOOD)
    document.setdefault(section, {}).update(keys)
    return document


def test_a_good_file_gives_typed_values_and_defaults() -> None:
    made = config.from_mapping(changed("instance", types=["g5.xlarge", "g4dn.xlarge"], volume_gb=80))
    assert made.instance.types == ("g5.xlarge", "g4dn.xlarge")
    assert made.instance.volume_gb == 80
    assert made.bake.deadline_minutes == 90
    assert made.s3.prefix == "transcribe-bake"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "[aws] region is missing"),
        (changed("aws", regoin="x"), "[aws] has an unknown key 'regoin'"),
        (changed("aws", region=""), "[aws] region is missing or empty"),
        (changed("aws", region=3), "[aws] region must be a string, not 3"),
        (changed("aws", credentials="x"), "unknown key 'credentials'"),
        (changed("s3", bucket=""), "[s3] bucket is missing or empty"),
        (changed("s3", bucket="s3://my-bucket/x"), "[s3] bucket must be the name of a bucket such as my-bucket, with"),
        (changed("s3", bucket="arn:aws:s3:::my-bucket"), "must be the name of a bucket"),
        (changed("source", ssm_parameter="/x"), "[source] needs exactly one of"),
        ({**GOOD, "source": {}}, "[source] needs exactly one of"),
        ({**GOOD, "source": {"name": "ubuntu*"}}, "owner and name together"),
        (changed("instance", types="g4dn.xlarge"), "[instance] types must be a list of strings"),
        (changed("instance", types=[1]), "[instance] types must be a list of strings"),
        (changed("instance", types=[]), "[instance] types must be a list of strings that names at least one"),
        (changed("instance", volume_gb=-1), "[instance] volume_gb must be a whole number that is not negative, not -1"),
        (changed("instance", volume_gb=True), "volume_gb must be a whole number that is not negative, not True"),
        (changed("aws", endpoint_url="localhost:5000"), "[aws] endpoint_url must be such as https://example.org"),
        (changed("s3", presign_endpoint_url="https://"), "[s3] presign_endpoint_url must be such as"),
        (changed("bake", deadline_minutes=0), "deadline_minutes must be a whole number from 1 to 720"),
        (changed("publish", ssm_parameter="image"), "ssm_parameter must be a path such as"),
        (changed("publish", ssm_parameter="/aws/image"), "ssm_parameter must be a path such as"),
        (changed("publish", regions=["eu-north-1"]), "regions names eu-north-1, where the image is made"),
        (
            changed("publish", accounts=["all"]),
            "[publish] accounts must be a list of account numbers, of 12 digits each, not ['all']",
        ),
        (changed("publish", organizations=["o-1"]), "[publish] organizations must be a list of ARNs"),
        (changed("publish", accounts=["111122223333"]), "no other account can use AWS' own key: set [image] kms_key"),
        (changed("publish", deprecate_days=-1), "deprecate_days must be a whole number that is not negative"),
        (changed("publish", keep=0), "keep must be a whole number of at least 1"),
        (changed("tags", project=1), "[tags] project must be a string, not 1"),
        (changed("prices", g5=1.5, g4dn=-1), "[prices] g4dn must be US dollars an hour, not -1"),
        (changed("launch", min_size=3), "[launch] min_size must not be above max_size"),
        (changed("launch", name="a/b"), "[launch] name must be 3 to 32 letters"),
        (changed("launch", pillar=3), "[launch] pillar must be a section, not 3"),
        (
            changed("instance", markets=["spot", "fixed"]),
            "[instance] markets must be a list of some of: on-demand, spot",
        ),
        ({**GOOD, "amazon": {}}, "unknown section [amazon]; known: aws"),
        ({**GOOD, "aws": "eu-north-1"}, "[aws] must be a section"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        config.from_mapping(document)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_or_parsed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read"):
        config.load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[aws\n")
    with pytest.raises(UsageError, match=r"broken\.toml: not valid TOML"):
        config.load(broken)


def test_the_shipped_file_needs_only_a_bucket(tmp_path: Path) -> None:
    shipped = (PROJECT / "bake.toml").read_text()
    with pytest.raises(UsageError, match=r"\[s3\] bucket is missing or empty"):
        config.load(PROJECT / "bake.toml")
    filled = tmp_path / "bake.toml"
    filled.write_text(shipped.replace('bucket = ""', 'bucket = "mine"'))
    assert config.load(filled).instance.types == ("g4dn.xlarge",)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"modle": {}}, "[pillar] has an unknown key 'modle'"),
        ({"model": {"idd": "x"}}, "[pillar.model] has an unknown key 'idd'"),
        ({"model": "x"}, "[pillar] model must be a section"),
        ({"port": "8000"}, "[pillar] port must be like 8000, not '8000'"),
        ({"port": True}, "[pillar] port must be like 8000, not True"),
    ],
)
def test_overrides_of_what_is_not_declared_are_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        pillar.check_overrides(PILLAR["transcribe"], overrides)
    assert words in str(caught.value)


def test_overrides_win_section_by_section() -> None:
    merged = pillar.merge(PILLAR["transcribe"], {"model": {"language": "sv"}, "port": 9000})
    assert (merged["model"]["language"], merged["model"]["id"], merged["port"]) == ("sv", "example/small", 9000)
    assert PILLAR["transcribe"]["port"] == 8000


def test_the_shipped_pillar_can_be_read_and_overridden() -> None:
    declared = pillar.load(PROJECT)
    pillar.check_overrides(declared, {"model": {"id": "x"}, "verify": {"max_word_error_rate": 1}})


def test_a_number_replaces_auto_where_a_number_is_meant() -> None:
    declared = pillar.load(PROJECT)
    pillar.check_overrides(declared, {"batch": {"max_chunks": 8}})
    for section, wrong in (({"batch": {"max_chunks": True}}, "True"), ({"device": 4}, "4")):
        with pytest.raises(UsageError, match=f"must be like 'auto', not {wrong}"):
            pillar.check_overrides(declared, section)
