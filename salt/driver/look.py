"""What a first look at a machine finds: facts that decide whether a bake can succeed on it. Changes nothing."""

import configparser
import os
import platform
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from driver import apt, disk

OS_RELEASE = Path("/etc/os-release")
NEEDRESTART = Path("/etc/needrestart")
DEVICES = Path("/dev")
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
PIP_FILES = (Path("/etc/pip.conf"), Path("/root/.config/pip/pip.conf"), Path("/root/.pip/pip.conf"))
PIP_DEFAULT = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"  # pip has no command for it
TIMEOUT = 8.0  # seconds for one address
Facts = dict[str, Any]


def facts(origin: Mapping[str, Any]) -> Facts:
    """System, Python, disk, package management, GPU, and what is reachable, the model hub of `origin` among it."""
    return {
        "system": _system(),
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "free_gb": round(disk.free_gb(), 1),
        "needed_gb": disk.needed_gb(origin.get("lock", "")),
        "gpu_on_bus": disk.has_gpu(),
        "nvidia_devices": sorted(path.name for path in DEVICES.glob("nvidia*")),
        "packages_busy": apt.busy_with(),
        "needrestart": NEEDRESTART.exists(),
        "venv": subprocess.run(["python3", "-c", "import ensurepip, venv"], check=False, capture_output=True).returncode
        == 0,
        "reachable": {name: reach(url) for name, url in _addresses(origin.get("hub", "")).items()},
    }


def reach(url: str, opened: Callable[..., Any] = urllib.request.urlopen) -> str:
    """Empty if a server answers at an address, whatever it answers; else why none does."""
    try:
        opened(url, timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()
        return "" if error.code < 500 else f"HTTP {error.code}"
    except urllib.error.URLError as error:
        # Somebody answers; whether the certificate is good is told by pip and apt, which have settings of their own.
        return "" if isinstance(error.reason, ssl.SSLCertVerificationError) else str(error.reason)
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""


def _addresses(hub: str) -> Mapping[str, str]:
    """What a bake will ask, without passwords in the names."""
    return {name: url for name, url in (("pip", _index()), ("apt", _mirror()), ("hub", hub)) if url}


def _index() -> str:
    """pip's index, as pip would find it."""
    found = os.environ.get("PIP_INDEX_URL", "")
    for path in PIP_FILES:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path)
            found = found or parser.get("global", "index-url", fallback="")
        except configparser.Error:
            continue
    if found:
        return found
    return subprocess.run(["python3", "-c", PIP_DEFAULT], check=False, capture_output=True, text=True).stdout.strip()


def _mirror() -> str:
    """The first mirror of the package lists."""
    files = [file for place in SOURCES for file in ([place] if place.is_file() else sorted(place.glob("*")))]
    for file in files:
        found = re.search(r"^(?:deb [^#\n]*?|URIs:\s*)(https?://\S+)", file.read_text(errors="replace"), re.MULTILINE)
        if found:
            return found[1]
    return ""


def _system() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', OS_RELEASE.read_text(), re.MULTILINE)
    return found[1] if found else ""
