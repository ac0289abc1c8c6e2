"""The project's limits on size, checked as tests: a function one can read at a glance, a module that is one thing."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FUNCTION_LINES = 40
MAX_MODULE_LINES = 400
MAX_STATE_LINES = 90


def tracked(*patterns: str) -> list[Path]:
    """The project's files, as git names them, new ones included."""
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def long_functions(path: Path) -> list[str]:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    return [f"{path.relative_to(ROOT)}:{name} has {size} lines" for name, size in sizes if size > MAX_FUNCTION_LINES]


@pytest.mark.slow
def test_functions_fit_on_a_page() -> None:
    assert [line for path in tracked("*.py") for line in long_functions(path)] == []


@pytest.mark.parametrize(
    ("pattern", "limit"), [("*.py", MAX_MODULE_LINES), ("salt/states/transcribe/*.sls", MAX_STATE_LINES)]
)
def test_files_are_one_thing(pattern: str, limit: int) -> None:
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in tracked(pattern)}
    assert {path: size for path, size in sizes.items() if size > limit} == {}
