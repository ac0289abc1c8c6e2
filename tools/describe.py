#!/usr/bin/env python3
"""Write docs/configuration.md: `python3 tools/describe.py`. Names, types and defaults come from the pillar and from the
launcher's own configuration; the sentences come from docs/configuration.toml."""

import sys
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ownvenv

ROOT = Path(__file__).resolve().parent.parent
PAGE, SENTENCES = ROOT / "docs/configuration.md", ROOT / "docs/configuration.toml"
TYPES = {
    str: "text", int: "whole number", float: "number", bool: "true or false", list: "list", Mapping: "table",
    tuple[str, ...]: "list of text", Mapping[str, Any]: "table",
}  # fmt: skip


class DocsError(Exception):
    """The page cannot be written; the message is one line."""


@dataclass(frozen=True)
class Setting:
    """One key: its name, the kind of value, and the default as it is written in the file ('' if it must be set)."""

    name: str
    kind: str
    default: str


def pillar_settings(declared: Mapping[str, Any], prefix: str = "") -> Iterator[Setting]:
    """The pillar's keys, dotted."""
    for key, value in declared.items():
        if isinstance(value, Mapping):
            yield from pillar_settings(value, f"{prefix}{key}.")
        else:
            yield Setting(f"{prefix}{key}", TYPES[type(value)], _written(value))


def sections() -> dict[str, list[Setting]]:
    """The sections of bake.toml, from the types that the launcher reads it into; `tables` are those with free keys."""
    from baker import config

    found: dict[str, list[Setting]] = {}
    tables: list[Setting] = []
    made = config.from_mapping({"aws": {"region": "-"}, "s3": {"bucket": "-"}, "source": {"ami": "-"}})
    for name, kind in typing.get_type_hints(config.LauncherConfig).items():
        if typing.get_origin(kind) is Mapping or typing.get_origin(kind) is dict:
            tables.append(Setting(name, "table", "{}"))
        elif isinstance(kind, type):
            section = getattr(made, name)
            found[name] = [_setting(key, hint, section) for key, hint in typing.get_type_hints(kind).items()]
    return {**found, "tables": tables}


def _setting(key: str, hint: Any, section: Any) -> Setting:
    value = getattr(section, key)
    return Setting(key, TYPES.get(hint, "table"), "" if value == "-" and key != "ami" else _written(value, key))


def _written(value: Any, key: str = "") -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    if isinstance(value, Mapping):
        return "{}"
    return f'"{"" if key == "ami" else value}"' if isinstance(value, str) else str(value)


def page(root: Path = ROOT) -> str:
    """The whole page. Raises DocsError that names a setting without a sentence, or a sentence without a setting."""
    from baker.inputs import pillar

    sentences = tomllib.loads((root / SENTENCES.relative_to(ROOT)).read_text(encoding="utf-8"))
    groups = {"pillar": list(pillar_settings(pillar.load(root))), **sections()}
    described = {(group, name) for group in sentences if group != "introduction" for name in sentences[group]}
    there = {(group, setting.name) for group, settings in groups.items() for setting in settings}
    for what, names in {"is not described": there - described, "does not exist": described - there}.items():
        if names:
            listed = ", ".join(f"[{group}] {name}" for group, name in sorted(names))
            raise DocsError(f"docs/configuration.toml: {listed}: {what}")
    parts = [sentences["introduction"], "## The pillar: `salt/pillar/transcribe.sls`\n"]
    parts += [_table(groups.pop("pillar"), sentences["pillar"])]
    tables = groups.pop("tables")
    parts += ["## The launcher: `bake.toml`\n"]
    for name, settings in groups.items():
        parts += [f"### `[{name}]`\n", _table(settings, sentences[name])]
    parts += ["### Tables with keys of your own\n", _table(tables, sentences["tables"])]
    return "\n".join(parts)


def _table(settings: list[Setting], sentences: Mapping[str, str]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for setting in settings:
        default = f"`{setting.default}`" if setting.default else "must be set"
        lines.append(f"| `{setting.name}` | {setting.kind} | {default} | {sentences[setting.name]} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page; returns the exit code."""
    try:
        PAGE.write_text(page(), encoding="utf-8")
    except DocsError as error:
        print(f"describe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    ownvenv.enter(str(Path(__file__).resolve()), "tools", ownvenv.ROOT / "tools/requirements.lock")
    sys.exit(main())
