"""The systems that a rehearsal starts from: their choice, their keys, and the wheels that they need."""

import os
import subprocess
from pathlib import Path

import pytest
from baker import cli
from baker.errors import UsageError
from baker.inputs import wheels
from localcloud import BASES, DEFAULT_BASE
from localcloud.machines import base_image

LOCK = "numpy==2.4.6 \\\n    --hash=sha256:0\ntorch==2.13.0+cpu \\\n    --hash=sha256:1\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "service").mkdir()
    (tmp_path / wheels.LOCK).write_text(LOCK)
    return tmp_path


def pip_says(monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> list[list[str]]:
    """Let pip answer `text`; returns the commands that it is asked with."""
    asked: list[list[str]] = []

    def run(command: list[str], **_options: object) -> "subprocess.CompletedProcess[str]":
        asked.append(command)
        return subprocess.CompletedProcess(command, code, text, "")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_a_rehearsal_may_name_its_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.parse(["rehearse"]).base == DEFAULT_BASE == "bookworm"
    assert [cli.parse(["rehearse", f"--base={name}"]).base for name in BASES] == ["bookworm", "trixie", "ubuntu-like"]
    assert cli.parse(["bake", "--cloud=local"]).base == DEFAULT_BASE
    with pytest.raises(SystemExit):
        cli.parse(["rehearse", "--base=woody"])
    assert "woody" in capsys.readouterr().err


def test_each_base_has_a_root_and_an_image_of_its_own() -> None:
    assert len({base_image.source_ami(name) for name in BASES}) == len(BASES)


def test_a_changed_file_of_a_base_makes_another_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base_image, "FILES", tmp_path)
    (tmp_path / "ubuntu-like").mkdir()
    (tmp_path / "ubuntu-like/unit").write_text("one")
    before = {name: base.key() for name, base in BASES.items()}
    (tmp_path / "ubuntu-like/unit").write_text("two")
    assert [name for name, base in BASES.items() if base.key() != before[name]] == ["ubuntu-like"]


def test_what_behaves_as_ubuntu_has_no_venv_and_old_libraries() -> None:
    base = base_image.UBUNTU
    assert "python3-venv" not in base.packages
    assert {"needrestart", "unattended-upgrades", "cron", "rsyslog"} <= set(base.packages)
    assert base.command(Path("/root"))[-1] == base.sources[0]
    assert not any("security" in source for source in base.sources)


@pytest.mark.parametrize(
    ("said", "code", "lacking"),
    [
        ("torch (2.15.0)\nAvailable versions: 2.15.0, 2.13.0\n", 0, ["torch 2.13.0+cpu"]),
        ("torch (2.15.0)\nAvailable versions: 2.15.0, 2.13.0+cpu, 2.13.0\n", 0, []),
        (
            "Could not fetch URL https://index.example/torch/: 404 Client Error: Not Found for url: x - skipping\n"
            "ERROR: No matching distribution found for torch\n",
            1,
            ["torch 2.13.0+cpu"],
        ),
    ],
    ids=["only the public build", "every wheel", "an index without the package"],
)
def test_a_wheel_that_pip_cannot_get_is_told(
    tree: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int, lacking: list[str]
) -> None:
    asked = pip_says(monkeypatch, said, code)
    assert wheels.lacking(tree, "trixie", "3.13") == lacking
    [command] = asked
    assert {"torch", "--python-version=3.13", "--only-binary=:all:"} <= set(command)


def test_an_index_that_does_not_answer_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pip as it is: what it says of a source decides."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")  # the port of "discard": nobody is there
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"cannot look for torch 2\.13\.0\+cpu: no answer from 127\.0\.0\.1;"):
        wheels.lacking(tree, "trixie", "3.13")


def test_the_lock_has_a_hash_of_torch_for_each_python_that_is_served() -> None:
    root = Path(__file__).resolve().parents[3]
    lock = (root / wheels.LOCK).read_text()
    block = lock[lock.index("torch==") :].split("\ntqdm==")[0]
    assert block.count("--hash=sha256:") == 4  # CPython 3.11 to 3.14
