"""Prepares this host for machines: the programs they need, and what the kernel must offer."""

import os
import shutil
from pathlib import Path

from .common import LocalCloudError, Say, run

PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "slirp4netns": "slirp4netns",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing_packages() -> list[str]:
    """The Debian packages that this host still needs."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = {package for program, package in PACKAGES.items() if not shutil.which(program, path=path)}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def prepare(say: Say) -> None:
    """Install what is missing. Raises LocalCloudError naming the command when that is not possible."""
    if os.geteuid() != 0:
        raise LocalCloudError("machines of the local cloud need root: run the same command with sudo")
    missing = missing_packages()
    if missing:
        install(missing, say)
    _need_overlay()
    _need_user_namespaces()
    if not Path("/dev/net/tun").exists():
        raise LocalCloudError("machines need /dev/net/tun for their network: run `modprobe tun`")


def install(packages: list[str], say: Say) -> None:
    """Install Debian packages on the host."""
    command = f"apt-get install -y {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise LocalCloudError(f"this host lacks {', '.join(packages)}: install the equivalent of `{command}`")
    say(f"installing on this host: {' '.join(packages)}")
    try:
        run(["apt-get", "update", "-qq"], why="refresh the list of packages", timeout=600)
        run(
            ["env", "DEBIAN_FRONTEND=noninteractive", *command.split(), "-qq", "--no-install-recommends"],
            why=f"install {' '.join(packages)}",
            timeout=900,
        )
    except LocalCloudError as error:
        raise LocalCloudError(f"{error}; run `{command}` by hand") from error


def _need_user_namespaces() -> None:
    limit = Path("/proc/sys/user/max_user_namespaces")
    if not Path("/proc/self/ns/user").exists() or (limit.exists() and int(limit.read_text()) < 1):
        raise LocalCloudError(
            "machines need user namespaces, so that their root is not this host's: sysctl user.max_user_namespaces=1000"
        )


def _need_overlay() -> None:
    filesystems = Path("/proc/filesystems")
    if "\toverlay" not in filesystems.read_text():
        run(["modprobe", "overlay"], why="load the kernel's overlay file system")
