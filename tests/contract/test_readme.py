"""The README's client examples, run as they stand against a real server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api_server_fixture import Api, running
from support.fake_worker import TEXTS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
SECTION = README.partition("\n## API\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(python|javascript|console)\n(.*?)^```$", SECTION, re.M | re.S)
COMMANDS = [line[2:] for kind, block in BLOCKS if kind == "console" for line in block.splitlines()]
PROGRAMS = [(kind, block) for kind, block in BLOCKS if kind != "console"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    (tmp_path / "clip.wav").write_bytes(b"sound")
    with running(tmp_path / "service") as found:
        yield found


def output(api: Api, directory: Path, argv: list[str], text: str = "") -> str:
    proxyless = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        argv, input=text, cwd=directory, env=proxyless, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_has_examples_for_curl_python_and_javascript() -> None:
    assert COMMANDS
    assert {kind for kind, _ in PROGRAMS} == {"python", "javascript"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers(api: Api, tmp_path: Path, command: str) -> None:
    heard = output(api, tmp_path, ["bash", "-c", command.replace("http://localhost:8000", api.url)])
    assert TEXTS[0].split()[0] in heard


@pytest.mark.parametrize(("kind", "program"), PROGRAMS)
def test_a_program_answers(api: Api, tmp_path: Path, kind: str, program: str) -> None:
    interpreter = {"python": [sys.executable, "-"], "javascript": ["node", "--input-type=module", "-"]}[kind]
    if shutil.which(interpreter[0]) is None:
        assert os.environ.get("CI") != "true", "CI may skip nothing: node is not installed"
        pytest.skip("node is not installed")
    heard = output(api, tmp_path, interpreter, program.replace("http://localhost:8000", api.url))
    assert TEXTS[0].split()[0] in heard
