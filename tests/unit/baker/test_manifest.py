"""The manifest: what a machine collects, the bill of materials made of it, and what separates two of them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from baker.aws.images import Ami
from baker.errors import RejectedError
from baker.images import diff, manifest, sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.fake_machine import manifest_of
from support.salt_states import load

A = manifest_of("a" * 64)


@pytest.fixture(name="collector")
def machine_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The execution module, on a machine whose service lies in a folder of the test and that runs this very Python."""
    module = load("_modules/transcribe_manifest.py")
    root, source = tmp_path / "opt", tmp_path / "srv"
    (root / "cache").mkdir(parents=True)
    (root / "venv").symlink_to(Path(sys.prefix))
    told = {"model_id": "a/m", "model_revision": "c" * 40, "files": {"m": {"sha256": "1" * 64, "bytes": 9}}}
    (root / "cache/cache_info.json").write_text(json.dumps(told))
    for name in ("salt/states/top.sls", "salt/driver/__pycache__/x.pyc", "service/api.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    monkeypatch.setattr(module, "SOURCE", source)
    monkeypatch.setattr(module, "_size", lambda folder: 1)
    monkeypatch.setattr(module, "_on_disk", lambda path: 3)
    monkeypatch.setattr(module, "__pillar__", {"transcribe": {"root": str(root)}}, raising=False)
    return module


def test_a_machine_tells_every_package_file_and_source(collector: Any, tmp_path: Path) -> None:
    written = collector.write({"bake": "b", "git_commit": "1e10"})
    assert written == json.loads((tmp_path / "opt/manifest.json").read_text()) == collector.read()
    assert written["origin"] == {"bake": "b", "git_commit": "1e10"}
    assert list(written["sources"]) == ["salt/states/top.sls", "service/api.py"]
    [numpy] = [package for package in written["python"]["service"] if package["name"] == "numpy"]
    assert len(numpy["files_sha256"]) == 64
    assert {"name", "version", "architecture", "files_sha256"} == set(written["debian"][0])
    assert any(package["name"] == "bash" and package["files_sha256"] for package in written["debian"])
    assert diff.difference(written, written).groups == {}


def test_the_bill_of_materials_is_valid_complete_and_always_the_same() -> None:
    told = {**A, "driver": "570.1"}
    bill = sbom.cyclonedx(told, manifest.digest(told))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    assert sbom.cyclonedx(told, manifest.digest(told)) == bill
    purls = {component.get("purl") for component in json.loads(bill)["components"]}
    assert purls >= {
        "pkg:pypi/numpy@2.0",
        "pkg:deb/debian/ffmpeg@7:5.1?arch=amd64&distro=debian-12",
        f"pkg:huggingface/a/model@{'c' * 40}",
    }
    types = {component["type"] for component in json.loads(bill)["components"]}
    assert types == {"library", "operating-system", "device-driver", "machine-learning-model"}


def test_what_separates_two_images_is_named_by_group() -> None:
    model = {**A["model"], "files": {"m.safetensors": {"sha256": "3" * 64, "bytes": 10}}}
    numpy, flask = ({**A["python"]["service"][0], **changed} for changed in ({"version": "2.1"}, {"name": "flask"}))
    sources = {"salt/states/layout.sls": "4" * 64, "service/cpu.lock": "5" * 64, "salt/pillar/transcribe.sls": "6" * 64}
    b = {**A, "model": model, "python": {"service": [numpy, flask], "salt": []}, "debian": [], "sources": sources}
    found = diff.difference(A, {**b, "kernel": "6.2", "bytes": {**A["bytes"], "venv": 60}})
    told = {name: [(c.what, c.before, c.after) for c in changes] for name, changes in found.groups.items()}
    assert told == {
        "system": [("kernel", "6.1", "6.2")],
        "model": [("m.safetensors", "9 bytes, sha256 111111111111", "10 bytes, sha256 333333333333")],
        "python (service)": [("flask", "", "2.0 00000000"), ("numpy", "2.0 00000000", "2.1 00000000")],
        "debian": [("ffmpeg", "7:5.1", "")],
        "states": [("salt/states/layout.sls", "2" * 12, "4" * 12)],
        "pillar": [("salt/pillar/transcribe.sls", "", "6" * 12)],
        "locks": [("service/cpu.lock", "", "5" * 12)],
    }
    assert found.bytes["venv"] == (50, 60)
    assert json.loads(json.dumps(found.document()))["bytes"]["venv"] == [50, 60]


@pytest.mark.parametrize("told", [None, {}, {**A, "kernel": "6.2"}])
def test_a_booted_image_must_have_the_manifest_that_was_baked(told: Any) -> None:
    tags = {"transcribe:manifest": manifest.digest(A)}
    image = Ami("ami-1", "n", "available", "", "/dev/xvda", 1, (), tags)
    manifest.check_booted({"manifest": json.loads(json.dumps(A))}, image)
    with pytest.raises(RejectedError):
        manifest.check_booted({"manifest": told}, image)
