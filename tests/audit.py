#!/usr/bin/env python3
"""Looks for known holes in what the locks pin: `tests/audit.py`. Exit codes: 0 none found, 1 holes.

With `pip-audit` on the PATH it asks that, which needs PyPI's own service. Otherwise it compares with safety-db, the
newest list of advisories that comes as a package; that one is old, and the last line says so.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
WANTED = Path(__file__).with_name("audit.txt")
FOLDER = ROOT / ".cache/audit"
LIST, ISSUED = "safety_db/insecure_full.json", "July 2021"
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([\w.!+]+)", re.MULTILINE)


def locks() -> list[Path]:
    """Every lock of the tree."""
    tracked = subprocess.run(["git", "ls-files", "-z", "*.lock"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in tracked.stdout.split("\0") if name]


def pins(lock: Path) -> list[tuple[str, str]]:
    """Names, as PEP 503 normalises them, and versions without a build's suffix."""
    found = PIN.findall(lock.read_text())
    return [(re.sub(r"[-_.]+", "-", name).lower(), version.split("+")[0]) for name, version in found]


def listed() -> dict[str, list[dict[str, Any]]]:
    """The advisories of safety-db, by package. Raises CalledProcessError when it cannot be had."""
    if not (FOLDER / LIST).is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--target", FOLDER, "--requirement", WANTED], check=True, capture_output=True)
    advisories: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / LIST).read_text())
    return {re.sub(r"[-_.]+", "-", name).lower(): found for name, found in advisories.items() if name != "$meta"}


def by_list(lock: Path, advisories: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The holes of one lock, a line each."""
    for name, version in pins(lock):
        for advisory in advisories.get(name, []):
            if any(SpecifierSet(spec).contains(version) for spec in advisory["specs"]):
                yield f"{os.path.relpath(lock, ROOT)}: {name} {version}: {advisory['advisory'].splitlines()[0]}"


def by_pip_audit(lock: Path) -> tuple[list[str], int]:
    """The holes of one lock, a line each, and how many packages could be asked for."""
    command = ["pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run([*command, "--requirement", str(lock)], capture_output=True, text=True, check=False)
    packages = json.loads(done.stdout or "{}").get("dependencies", [])
    asked = [package for package in packages if "skip_reason" not in package]
    where = os.path.relpath(lock, ROOT)
    return [f"{where}: {one['name']} {one['version']}: {hole['id']}" for one in asked for hole in one["vulns"]], len(
        asked
    )


def main() -> int:
    found = locks()
    count = len({pin for lock in found for pin in pins(lock)})
    if shutil.which("pip-audit") and by_pip_audit(found[0])[1]:
        holes = [hole for lock in found for hole in by_pip_audit(lock)[0]]
        said = f"{count} packages of {len(found)} locks, as PyPI knows them today"
    else:
        try:
            holes = [hole for lock in found for hole in by_list(lock, listed())]
            said = f"{count} packages of {len(found)} locks. NOT LOOKED FOR: anything published after {ISSUED}"
        except (subprocess.CalledProcessError, OSError):
            holes, said = [], "NOTHING WAS LOOKED FOR: neither PyPI's service nor safety-db can be reached"
    print("\n".join([*holes, f"{len(holes)} known holes in {said}."]))
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
