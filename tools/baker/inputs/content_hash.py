"""What an image is made from, as one digest per input, so that a changed input can be named.

Addresses (ports, endpoints, URLs) are no input: they say where things are fetched, not what they are.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baker.inputs import payload, source_tree

LAUNCHER = ("tools/baker", "cloud-init")
ADDRESS_KEYS = ("endpoint",)
SHORT = 12  # hex digits of one input's digest: all of them must fit one AWS tag value of 256 characters


def inputs(
    root: Path, digests: Mapping[str, str], overrides: Mapping[str, Any], sources: Mapping[str, str]
) -> dict[str, str]:
    """The digest of each input by its name.

    `digests` are the payload's files; `sources` further inputs by name, such as the source image's id.
    """
    groups: dict[str, dict[str, str]] = {"states": {}, "pillar": {}, "locks": {}, "service": {}, "launcher": {}}
    for name, digest in digests.items():
        if name != payload.OVERRIDES:
            groups[group_of(name)][name] = digest
    groups["pillar"]["overrides"] = json.dumps(without_addresses(overrides), sort_keys=True)
    for name in source_tree.files(root, LAUNCHER):
        groups["launcher"][name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    result = {name: _digest(json.dumps(group, sort_keys=True)) for name, group in groups.items()}
    return result | {name: _digest(value) for name, value in sources.items()}


def combined(by_input: Mapping[str, str]) -> str:
    """One SHA-256 (hex) over every input."""
    return hashlib.sha256(json.dumps(dict(by_input), sort_keys=True).encode()).hexdigest()


def as_tag(by_input: Mapping[str, str]) -> str:
    """The inputs in one tag value: `launcher=0123456789ab locks=...`."""
    return " ".join(f"{name}={digest}" for name, digest in sorted(by_input.items()))


def from_tag(tag: str) -> dict[str, str]:
    """The inverse of `as_tag`; anything else in the tag is left out."""
    return dict(pair.split("=", 1) for pair in tag.split() if "=" in pair)


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the inputs that differ, sorted."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def without_addresses(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` without the keys that hold addresses, at any depth."""
    return {
        key: without_addresses(value) if isinstance(value, Mapping) else value
        for key, value in overrides.items()
        if key not in ADDRESS_KEYS
    }


def group_of(name: str) -> str:
    """The input that a file of the payload belongs to."""
    if name.endswith(".lock"):
        return "locks"
    if name.startswith("salt/pillar/"):
        return "pillar"
    return "states" if name.startswith("salt/") else "service"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]
