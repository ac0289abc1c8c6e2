"""Package management at a first boot: it updates itself, holds apt's locks, and must be over before a bake begins."""

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from driver.parameters import DriverError

# Stopping them leaves their children at work (KillMode=process), which is why the locks are waited for.
UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily-upgrade.service")
LOCKS = (  # DPkg::Lock::Timeout covers only the first of them
    Path("/var/lib/dpkg/lock-frontend"),
    Path("/var/lib/dpkg/lock"),
    Path("/var/lib/apt/lists/lock"),
    Path("/var/cache/apt/archives/lock"),
)
PROC = Path("/proc")
PROGRAMS = ("apt", "apt-get", "aptitude", "dpkg", "apt.systemd.dai", "unattended-upgr")  # as the kernel cuts names
WAITS = "shutdown"  # in the arguments of the unattended-upgrade that only waits for the machine to stop
FLOCK = "hhqqi"  # struct flock: type, whence, start, length, pid
QUIET_SECONDS = 900.0  # a first unattended upgrade may install a kernel
POLL_SECONDS = 2.0
SETTLED = 2  # looks in a row that find nobody: between two packages no lock is held


def wait_until_quiet(say: Callable[[str], None], seconds: float = QUIET_SECONDS) -> None:
    """Return once nobody installs or updates packages. Raises DriverError that names who still does after `seconds`."""
    subprocess.run(["systemctl", "stop", "--no-block", *UNITS], check=False, capture_output=True)
    end, quiet, told = time.monotonic() + seconds, 0, ""
    while quiet < SETTLED:
        busy = busy_with()
        quiet = 0 if busy else quiet + 1
        if busy and time.monotonic() > end:
            raise DriverError(f"package management is still busy after {seconds:.0f} s: {busy}")
        if busy:
            say(f"waiting for {busy}")
        if busy and busy != told:
            print(f"waiting for {busy}", flush=True)  # the log tells of each once
            told = busy
        time.sleep(POLL_SECONDS if busy else POLL_SECONDS / 4)


def busy_with() -> str:
    """Who works on packages, or holds one of the locks; empty for nobody."""
    for lock in LOCKS:
        holder = held_by(lock)
        if holder:
            return f"{_name(holder)} (pid {holder}), which holds {lock}"
    for folder in PROC.glob("[0-9]*"):
        if _name(int(folder.name)) in PROGRAMS and WAITS not in _arguments(folder):
            return f"{_name(int(folder.name))} (pid {folder.name})"
    return ""


def held_by(lock: Path) -> int:
    """The process that holds a lock of apt or dpkg, which are locks of fcntl; 0 for none."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return 0
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _arguments(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
