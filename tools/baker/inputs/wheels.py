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


def lacking(root: Path, base: str, python: str) -> list[str]:
    """The wheels that pip cannot get for this Python, such as `torch 2.13.0+cpu`; a machine takes the CUDA builds then.

    Only local builds are asked for: PyPI carries everything else. Raises UsageError that names the sources which do
    not answer.
    """
    found = {
        (name, version): available(name, python) for name, version in LOCAL_BUILD.findall((root / LOCK).read_text())
    }
    missing = {f"{name} {version}": seen for (name, version), seen in found.items() if version not in seen.versions}
    silent = sorted({host for seen in missing.values() for host in seen.silent})
    if silent:
        raise UsageError(
            f"--base {base} has Python {python}, and pip cannot look for {', '.join(missing)}: no answer from "
            f"{', '.join(silent)}; check the network, and pip's index-url and extra-index-url"
        )
    return list(missing)


def available(name: str, python: str) -> Found:
    """The versions of a package for which pip finds a wheel for this Python; none if it finds no package."""
    asked = ["index", "versions", name, f"--python-version={python}", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "-vv", "--disable-pip-version-check", "--no-input", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    listed = LISTED.search(said)
    silent = {urlsplit(url).hostname or url for url in UNANSWERED.findall(said)}
    return Found(listed[1].split(", ") if listed else [], silent)
