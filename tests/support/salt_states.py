"""The states as Salt sees them, rendered here: Jinja and YAML, with the pillar and a machine made up for a test."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).resolve().parents[2]
STATES = ROOT / "salt/states"
PILLAR: dict[str, Any] = yaml.safe_load((ROOT / "salt/pillar/transcribe.sls").read_text())
Salt = dict[str, Callable[..., Any]]


def machine(*, lock: str = "cpu.lock", drivers: tuple[str, ...] = (), uid: int = 999) -> Salt:
    """What the states ask of a machine."""
    return {
        "transcribe.lock": lambda: lock,
        "transcribe_gpu.drivers": lambda: list(drivers),
        "user.info": lambda name: {"name": name, "uid": uid},
    }


def render(path: Path, *, salt: Salt | None = None, pillar: dict[str, Any] | None = None) -> str:
    """A template's text."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    text = path.read_text()
    values: dict[str, Any] = {"pillar": pillar or PILLAR, "salt": salt or machine()}
    if "import_yaml" in text:  # Salt's own tag: `import_yaml 'FILE' as NAME`
        line = next(line for line in text.splitlines() if "import_yaml" in line)
        values[line.split()[-2]] = yaml.safe_load((STATES / line.split("'")[1]).read_text())
        text = text.replace(line, "")
    environment.filters["json"] = json.dumps
    return environment.from_string(text).render(values)


def states(name: str, *, salt: Salt | None = None, pillar: dict[str, Any] | None = None) -> dict[str, Any]:
    """The states of transcribe.NAME, by id, without its include."""
    found: dict[str, Any] = yaml.safe_load(render(STATES / f"transcribe/{name}.sls", salt=salt, pillar=pillar))
    found.pop("include", None)
    return found


def arguments(state: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The function of a state and its arguments."""
    ((function, listed),) = state.items()
    return function, {key: value for item in listed for key, value in item.items()}


def load(
    name: str, *, salt: Salt | None = None, test: bool = False, pillar: dict[str, Any] | None = None
) -> ModuleType:
    """One of the custom modules (`_states/x.py`), with what Salt gives it."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, STATES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__dict__.update(__salt__=salt or {}, __opts__={"test": test}, __pillar__=pillar or PILLAR)
    return module
