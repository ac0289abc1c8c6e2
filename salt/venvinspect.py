"""Run by lockedvenv.py inside an environment, whose own interpreter evaluates the lock's markers.

Reads a JSON list of requirement lines from standard input; prints what is installed otherwise, as JSON.
"""

import base64
import csv
import hashlib
import json
import os
import sys
from importlib.metadata import Distribution, distributions

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name


def pinned(lines: list[str]) -> dict[str, str]:
    """Name to version of the requirements that apply to this interpreter."""
    applying = [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate()]
    return {str(canonicalize_name(r.name)): next(iter(r.specifier)).version for r in applying}


def noted() -> int:
    """When `sync` last left this environment as its locks say, in ns: only what changed since has to be read."""
    try:
        return os.stat(os.path.join(sys.prefix, "locks.json")).st_ctime_ns  # noqa: PTH116, PTH118
    except OSError:
        return 0


def whole(distribution: Distribution, since: int) -> bool:
    """Whether every file that the package installed is there with its size and, if its inode changed after `since`
    (no program can set that time back), its content."""
    base = os.path.join(str(distribution.locate_file("")), "")  # noqa: PTH118 - thousands of files: pathlib is slow
    for path, digest, size in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        # Compiled files come and go; a .data folder's files were moved to where they belong.
        if path.endswith(".pyc") or ".data/" in path:
            continue
        try:
            found = os.stat(base + path)  # noqa: PTH116
            if size and int(size) != found.st_size:
                return False
            if digest and found.st_ctime_ns > since and not matches(base + path, digest):
                return False
        except OSError:
            return False
    return True


def matches(path: str, recorded: str) -> bool:
    """Whether a file's content has the digest of its RECORD, which is written as `sha256=…`."""
    algorithm, _, value = recorded.partition("=")
    with open(path, "rb") as file:  # noqa: PTH123
        digest = hashlib.file_digest(file, algorithm).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == value


def main() -> None:
    wanted, since = pinned(json.load(sys.stdin)), noted()
    # A folder whose metadata is gone has no name, and shows as missing.
    installed = {str(canonicalize_name(d.metadata["Name"])): d for d in distributions() if d.metadata["Name"]}
    same = {name: installed[name].version == wanted[name] for name in wanted if name in installed}
    difference = {
        "pinned": len(wanted),
        "missing": sorted(wanted.keys() - installed.keys()),
        "wrong": sorted(name for name, right in same.items() if not right),
        "damaged": sorted(name for name, right in same.items() if right and not whole(installed[name], since)),
        "extra": sorted(installed.keys() - wanted.keys() - {"pip"}),
    }
    print(json.dumps(difference))


main()
