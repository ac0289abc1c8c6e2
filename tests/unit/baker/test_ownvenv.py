"""The programs' own environments: built once, entered at once, and every reason why not is one line."""

import os
import sys
from pathlib import Path

import ownvenv
import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ownvenv, "ROOT", tmp_path)
    monkeypatch.setattr(ownvenv, "CACHE", tmp_path / ".cache")
    (tmp_path / "tools.lock").write_text("")
    return tmp_path / ".cache"


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "argv", ["bake.py", "plan"])
    return calls


def test_an_environment_is_built_once_and_again_when_its_lock_changes(
    cache: Path, entered: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []

    def build(program: str, venv: Path, lock: Path) -> None:
        venv.mkdir(parents=True, exist_ok=True)
        built.append(venv)

    monkeypatch.setattr(ownvenv, "build", build)
    lock = cache.parent / "tools.lock"
    ownvenv.enter("bake.py", "tools", lock)
    ownvenv.enter("bake.py", "tools", lock)
    assert built == [cache / "venvs/tools"]
    assert entered == [[str(cache / "venvs/tools/bin/python"), "bake.py", "plan"]] * 2
    lock.write_text("# changed")
    ownvenv.enter("bake.py", "tools", lock)
    assert len(built) == 2


def test_inside_the_environment_nothing_happens(
    cache: Path, entered: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(cache / "venvs/tools"))
    ownvenv.enter("bake.py", "tools", cache.parent / "tools.lock")
    assert entered == []


def test_an_installation_that_failed_leaves_no_stamp(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ownvenv.build("bake.py", cache / "venvs/tools", cache.parent / "missing.lock")
    assert ended.value.code == 1
    assert not (cache / "venvs/tools" / ownvenv.STAMP).exists()
    assert "bake: cannot read the lock" in capsys.readouterr().err


def test_without_root_the_missing_module_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit):
        ownvenv.install_venv_module("/x/bake.py")
    assert capsys.readouterr().err == (
        "bake: this Python cannot make virtual environments; run: sudo apt-get install python3-venv\n"
    )


def test_a_folder_of_somebody_else_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit):
        ownvenv.build("bake.py", cache / "venvs/tools", cache.parent / "tools.lock")
    assert "belongs to somebody else" in capsys.readouterr().err


def test_under_sudo_the_cache_belongs_to_who_called(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *told: owned.append(told))
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "1001")
    ownvenv.make_folders(cache / "venvs")
    assert owned == [(cache, 1000, 1001), (cache / "venvs", 1000, 1001)]
