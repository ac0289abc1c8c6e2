"""The client examples of README.md and docs/api.md, run as they stand against a real server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api_server_fixture import Api, running
from support.fake_worker import TEXTS
from support.pages import ROOT, Page

pytestmark = pytest.mark.slow

README, API = Page(ROOT / "README.md"), Page(ROOT / "docs/api.md")
HERE = "http://localhost:8000"
COMMANDS = [command for page in (README, API) for command in page.commands if HERE in command]
PROGRAMS = [(kind, block) for kind, block in API.blocks if kind in ("python", "javascript")]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    (tmp_path / "clip.wav").write_bytes(b"sound")
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # README's command takes a recording from there
    with running(tmp_path / "service") as found:
        yield found


def output(api: Api, directory: Path, argv: list[str], text: str = "") -> str:
    proxyless = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        argv, input=text, cwd=directory, env=proxyless, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples_for_curl_python_and_javascript() -> None:
    assert len(COMMANDS) >= 3
    assert {kind for kind, _ in PROGRAMS} == {"python", "javascript"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers(api: Api, tmp_path: Path, command: str) -> None:
    printed = output(api, tmp_path, ["bash", "-c", command.replace(HERE, api.url)])
    assert TEXTS[0].split()[0] in printed


@pytest.mark.parametrize(("kind", "program"), PROGRAMS)
def test_a_program_answers(api: Api, tmp_path: Path, kind: str, program: str) -> None:
    interpreter = {"python": [sys.executable, "-"], "javascript": ["node", "--input-type=module", "-"]}[kind]
    if shutil.which(interpreter[0]) is None:
        assert os.environ.get("CI") != "true", "CI may skip nothing: node is not installed"
        pytest.skip("node is not installed")
    printed = output(api, tmp_path, interpreter, program.replace(HERE, api.url))
    assert TEXTS[0].split()[0] in printed
