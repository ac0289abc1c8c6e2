"""The pillar as the launcher needs it: read, overridden, and checked for keys that do not exist."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from baker.errors import UsageError

FILE = "salt/pillar/transcribe.sls"
ROOT_KEY = "transcribe"
NUMBER_OR_AUTO = {"max_chunks"}  # keys whose `auto` a number may replace
Tree = Mapping[str, Any]


def load(root: Path) -> dict[str, Any]:
    """The declaration under `transcribe:`; raises UsageError when the file cannot be read as that."""
    try:
        document = yaml.safe_load((root / FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{FILE}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{FILE}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or not isinstance(document.get(ROOT_KEY), dict):
        raise UsageError(f"{FILE}: must hold one mapping under {ROOT_KEY!r}")
    declared: dict[str, Any] = document[ROOT_KEY]
    return declared


def check_overrides(declared: Tree, overrides: Tree, where: str = "pillar") -> None:
    """Refuse an override of a key that the pillar does not declare, or of another type."""
    for key, value in overrides.items():
        if key not in declared:
            raise UsageError(f"[{where}] has an unknown key {key!r}; {FILE} declares: {', '.join(declared)}")
        if isinstance(declared[key], Mapping):
            if not isinstance(value, Mapping):
                raise UsageError(f"[{where}] {key} must be a section")
            check_overrides(declared[key], value, f"{where}.{key}")
        elif not (_alike(declared[key], value) or (key in NUMBER_OR_AUTO and type(value) is int)):
            raise UsageError(f"[{where}] {key} must be like {declared[key]!r}, not {value!r}")


def _alike(declared: object, value: object) -> bool:
    """Whether `value` may stand where `declared` does: the same type, or a whole number for a fraction."""
    return type(value) is type(declared) or (type(value) is int and type(declared) is float)


def merge(declared: Tree, overrides: Tree) -> dict[str, Any]:
    """`declared` with `overrides` on top, section by section: what the machine will see."""
    merged = deepcopy(dict(declared))
    for key, value in overrides.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged
