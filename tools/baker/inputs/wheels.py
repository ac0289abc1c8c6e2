"""Whether pip's sources on this computer have the wheels that a base of the local cloud needs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from baker.errors import UsageError

LOCK = "service/cpu.lock"
LOCAL_BUILD = re.compile(r"^([A-Za-z0-9._-]+)==(\S+\+\S+)", re.MULTILINE)  # such as torch==2.13.0+cpu
LISTED = re.compile(r"^Available versions: (.*)$", re.MULTILINE)
UNANSWERED = re.compile(r"Could not fetch URL (\S+): (?!404 )")  # with 404 an index says that it has no such package


class Found(NamedTuple):
    """What pip found of a package: versions with a wheel, and the hosts of those of its sources that gave no answer."""

    versions: list[str]
    silent: set[str]


def require(root: Path, base: str, python: str) -> None:
    """Raises UsageError that names the wheels which pip cannot get for this Python, and the sources that do not answer.

    Only local builds are asked for: PyPI carries everything else, and a machine would take gigabytes of CUDA instead.
    """
    lacking: list[str] = []
    silent: set[str] = set()
    for name, version in LOCAL_BUILD.findall((root / LOCK).read_text()):
        found = available(name, python)
        if version not in found.versions:
            lacking.append(f"{name} {version}")
            silent |= found.silent
    if silent:
        raise UsageError(
            f"--base {base} has Python {python}, and pip cannot look for {', '.join(lacking)}: no answer from "
            f"{', '.join(sorted(silent))}; check the network, and pip's index-url and extra-index-url"
        )
    if lacking:
        raise UsageError(
            f"--base {base} has Python {python}, for which pip's sources on this computer have no wheel of "
            f"{', '.join(lacking)}: add PyTorch's index of CPU builds to pip's extra-index-url, "
            "or a folder with the wheel to find-links"
        )


def available(name: str, python: str) -> Found:
    """The versions of a package for which pip finds a wheel for this Python; none if it finds no package."""
    asked = ["index", "versions", name, f"--python-version={python}", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "-vv", "--disable-pip-version-check", "--no-input", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    listed = LISTED.search(said)
    silent = {urlsplit(url).hostname or url for url in UNANSWERED.findall(said)}
    return Found(listed[1].split(", ") if listed else [], silent)
