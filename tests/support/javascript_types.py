"""The fields of requests as the declarations (.d.ts) of OpenAI's JavaScript client have them, in the form that
tests/clients/client.py prints for Python's."""

import re
from pathlib import Path
from typing import Any

LITERALS: dict[str, list[Any]] = {
    "null": [],  # the client itself refuses it in a form
    "true": [True],
    "false": [False],
    "boolean": [True, False],
    "string": ["?"],
    "number": ["?"],
    "(string & {})": ["?"],
    "Uploadable": ["?"],
}
ALIASES = {"ResponseFormat": "AudioResponseFormat"}  # a type parameter
MEMBER = re.compile(r"^\s+(\w+)\??: (.*);$", re.MULTILINE)


def fields_of(package: Path) -> dict[str, dict[str, list[Any]]]:
    """By route, the fields and the values that their types allow, without the file; "?" is any text or number."""
    folder = package / "resources" / "audio"
    texts = {name: (folder / f"{name}.d.ts").read_text() for name in ("audio", "transcriptions", "translations")}
    declared = re.sub(r"/\*.*?\*/", "", "\n".join(texts.values()), flags=re.DOTALL)
    found = {
        "transcriptions": _members(declared, "TranscriptionCreateParamsBase"),
        "translations": _members(declared, "TranslationCreateParams"),
    }
    for fields in found.values():
        del fields["file"]
    return found


def _members(declared: str, interface: str) -> dict[str, list[Any]]:
    block = re.search(rf"interface {interface}\b[^{{]*{{(.*?)^\s*}}", declared, re.DOTALL | re.MULTILINE)
    assert block, f"the client declares no {interface}"
    return {
        name: [value for part in _parts(kind) for value in _values(declared, part)]
        for name, kind in MEMBER.findall(block[1])
    }


def _parts(union: str) -> list[str]:
    """The members of a union; those within Array<…> belong together."""
    return re.findall(r"Array<[^>]*>|'[^']*'|\([^)]*\)|[\w.]+", union)


def _values(declared: str, part: str) -> list[Any]:
    if part in LITERALS:
        return LITERALS[part]
    if part.startswith("'"):
        return [part.strip("'")]
    if part.startswith("Array<"):
        inner = part.removeprefix("Array<").removesuffix(">")
        return [[value] for member in _parts(inner) for value in _values(declared, member)]
    name = part.rpartition(".")[2]
    name = ALIASES.get(name, name)
    if alias := re.search(rf"type {name} = (.*);", declared):
        return [value for member in _parts(alias[1]) for value in _values(declared, member)]
    return [{member: choices[0] for member, choices in _members(declared, name).items()}]
