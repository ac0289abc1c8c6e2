"""New API keys, by the commands that an operator types."""

import subprocess
import sys
from pathlib import Path

import pytest
from transcribe.api.auth import Keys

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_PACKAGES = [sys.executable, "-E", "-S", str(ROOT / "service/api_server.py"), "--new-key"]  # as on a clone
LAUNCHER = [sys.executable, str(ROOT / "tools/bake.py"), "new-key"]
COMMANDS = pytest.mark.parametrize(
    "command",
    [pytest.param(WITHOUT_PACKAGES, id="api_server.py"), pytest.param(LAUNCHER, id="bake.py", marks=pytest.mark.slow)],
)


def run(command: list[str], name: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*command, name], capture_output=True, text=True, timeout=600, check=False)


@COMMANDS
def test_a_new_key_opens_the_service_once_its_line_is_in_the_keys_file(command: list[str], tmp_path: Path) -> None:
    done = run(command, "anna")
    assert done.returncode == 0, done.stderr  # on a fresh clone it also says that it sets up its environment
    shown = dict(line.split(":", 1) for line in done.stdout.splitlines())
    key, line = shown["key"].strip(), shown["line"].strip()
    assert key not in line
    (tmp_path / "keys").write_text(f"{line}\n")
    keys = Keys(tmp_path / "keys")
    assert str(keys.identify(f"Bearer {key}")).startswith("anna:")
    assert keys.identify(f"Bearer {key}x") is None


@COMMANDS
def test_a_name_that_cannot_stand_in_the_file_is_refused_in_one_line(command: list[str]) -> None:
    done = run(command, "a b")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "1 to 64 letters" in done.stderr
