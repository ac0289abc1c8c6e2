"""The service reads exactly what the pillar says: drift between the two fails here, in milliseconds."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from transcribe.config import ConfigError, ServiceConfig, check_user, default_path, load

PILLAR = Path(__file__).resolve().parents[3] / "salt" / "pillar" / "transcribe.sls"


@pytest.fixture
def pillar() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PILLAR.read_text())
    return loaded


def set_key(mapping: dict[str, Any], dotted: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(mapping)
    *parents, last = dotted.split(".")
    section = changed
    for parent in parents:
        section = section[parent]
    section[last] = value
    return changed


def test_the_real_pillar_is_the_configuration(pillar: dict[str, Any]) -> None:
    config = ServiceConfig.from_mapping(pillar["transcribe"])
    assert config.model.id == "KBLab/kb-whisper-small"
    assert config.limits.audio_seconds == 14400
    assert config.database == Path("/opt/transcribe/results/jobs.sqlite3")
    assert config.cache_info == Path("/opt/transcribe/cache/cache_info.json")
    names = [config.venv, config.models, config.cache, config.scripts, config.temp, config.logs, config.results]
    assert [path.name for path in names] == ["venv", "models", "cache", "scripts", "temp", "logs", "results"]


@pytest.mark.parametrize("outer", [True, False])
def test_load_takes_the_pillar_verbatim(tmp_path: Path, pillar: dict[str, Any], *, outer: bool) -> None:
    file = tmp_path / "transcribe.json"
    file.write_text(json.dumps(pillar if outer else pillar["transcribe"]))
    assert load(file) == ServiceConfig.from_mapping(pillar["transcribe"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prot", 1, "unknown key: prot"),
        ("limits.uploads", 1, "unknown key: limits.uploads"),
        ("port", "8000", "port must be a whole number, not '8000'"),
        ("port", True, "port must be a whole number, not True"),
        ("port", 65536, "port must be a whole number <= 65535, not 65536"),
        ("limits.queue_jobs", 0, "limits.queue_jobs must be a whole number >= 1, not 0"),
        ("limits.queue_jobs", 1.5, "limits.queue_jobs must be a whole number, not 1.5"),
        ("root", "opt", "root must be an absolute path, not 'opt'"),
        ("root", None, "root must be an absolute path, not None"),
        ("model", "whisper", "model must be a mapping, not 'whisper'"),
        ("model.id", "", "model.id must be a string of length >= 1, not ''"),
        (
            "install.remove_toolkits",
            ["../etc"],
            r"install.remove_toolkits[0] must be a string matching regex '^cuda-[0-9]+(\\.[0-9]+)*$', not '../etc'",
        ),
        ("model.task", "sing", "model.task must be one of transcribe, translate, not 'sing'"),
        ("retention.results_hours", 0, "retention.results_hours must be a number > 0.0, not 0"),
        ("device", "tpu", "device must be one of auto, cuda, cpu, not 'tpu'"),
        ("callbacks.enabled", "no", "callbacks.enabled must be true or false, not 'no'"),
        ("cors.origins", "*", "cors.origins must be a list, not '*'"),
        ("cors.origins", ["https://a.example", 3], "cors.origins[1] must be a string, not 3"),
    ],
)
def test_a_wrong_key_is_named(pillar: dict[str, Any], key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServiceConfig.from_mapping(set_key(pillar["transcribe"], key, value))
    assert str(caught.value) == message


def every_key(mapping: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        found
        for name, value in mapping.items()
        for found in [prefix + name, *(every_key(value, f"{prefix}{name}.") if isinstance(value, dict) else [])]
    ]


def test_every_missing_key_is_named(pillar: dict[str, Any]) -> None:
    for key in every_key(pillar["transcribe"]):
        mapping = copy.deepcopy(pillar["transcribe"])
        *parents, last = key.split(".")
        section = mapping
        for parent in parents:
            section = section[parent]
        del section[last]
        with pytest.raises(ConfigError, match=rf"missing key: {key}$"):
            ServiceConfig.from_mapping(mapping)


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "is not valid JSON"), ("{", "is not valid JSON"), ("[]", "the document must be a mapping, not []")],
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "transcribe.json"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing; run salt-call"):
        load(tmp_path / "none.json")


def test_the_path_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSCRIBE_CONFIG", "/tmp/x.json")
    assert default_path() == Path("/tmp/x.json")
    monkeypatch.delenv("TRANSCRIBE_CONFIG")
    assert default_path() == Path("/opt/transcribe/config/transcribe.json")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_does_not_work_in_folders_of_the_service(pillar: dict[str, Any], tmp_path: Path) -> None:
    config = ServiceConfig.from_mapping({**pillar["transcribe"], "root": str(tmp_path)})
    (tmp_path / "results").mkdir()
    check_user(config)
    os.chown(tmp_path / "results", 65534, 65533)
    with pytest.raises(ConfigError, match="not as root, in folders of another user: runuser -u transcribe -- COMMAND"):
        check_user(config)
