"""Whether pip's sources on this computer have the wheels that a base of the local cloud needs."""

import re
import subprocess
import sys
from pathlib import Path

from baker.errors import UsageError

LOCK = "service/cpu.lock"
LOCAL_BUILD = re.compile(r"^([A-Za-z0-9._-]+)==(\S+\+\S+)", re.MULTILINE)  # such as torch==2.13.0+cpu
LISTED = re.compile(r"^Available versions: (.*)$", re.MULTILINE)


def require(root: Path, base: str, python: str) -> None:
    """Raises UsageError that names the wheels which pip cannot get for this Python.

    Only local builds are asked for: PyPI carries everything else, and a machine would take gigabytes of CUDA instead.
    """
    lacking = [
        f"{name} {version}"
        for name, version in LOCAL_BUILD.findall((root / LOCK).read_text())
        if version not in available(name, python)
    ]
    if lacking:
        raise UsageError(
            f"--base {base} has Python {python}, for which pip's sources on this computer have no wheel of "
            f"{', '.join(lacking)}: add PyTorch's index of CPU builds to pip's extra-index-url, "
            "or a folder with the wheel to find-links"
        )


def available(name: str, python: str) -> list[str]:
    """The versions of a package for which pip finds a wheel for this Python; none if it finds no package."""
    asked = ["index", "versions", name, f"--python-version={python}", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = LISTED.search(done.stdout)
    return found[1].split(", ") if found else []
