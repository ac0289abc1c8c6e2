"""Run by lockedvenv.py inside an environment, whose own interpreter evaluates the lock's markers.

Reads a JSON list of requirement lines from standard input; prints what is installed otherwise, as JSON.
"""

import csv
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


def whole(distribution: Distribution) -> bool:
    """Whether every file that the package installed is there with its size."""
    base = os.path.join(str(distribution.locate_file("")), "")  # noqa: PTH118 - thousands of files: pathlib is slow
    for path, _, size in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        # Compiled files come and go; a .data folder's files were moved to where they belong.
        if path.endswith(".pyc") or ".data/" in path:
            continue
        try:
            found = os.stat(base + path).st_size  # noqa: PTH116
        except OSError:
            return False
        if size and int(size) != found:
            return False
    return True


def main() -> None:
    wanted = pinned(json.load(sys.stdin))
    # A folder whose metadata is gone has no name, and shows as missing.
    installed = {str(canonicalize_name(d.metadata["Name"])): d for d in distributions() if d.metadata["Name"]}
    same = {name: installed[name].version == wanted[name] for name in wanted if name in installed}
    difference = {
        "pinned": len(wanted),
        "missing": sorted(wanted.keys() - installed.keys()),
        "wrong": sorted(name for name, right in same.items() if not right),
        "damaged": sorted(name for name, right in same.items() if right and not whole(installed[name])),
        "extra": sorted(installed.keys() - wanted.keys() - {"pip"}),
    }
    print(json.dumps(difference))


main()
