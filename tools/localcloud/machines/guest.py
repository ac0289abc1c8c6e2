"""Acts inside a running machine from this host; needs root. `leader` is the machine's init as this host numbers it."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from localcloud.common import LocalCloudError, wait_for

BOOTED = ("running", "degraded")
LONGEST_ANSWER = 30.0  # seconds
UNIFIED = Path("/sys/fs/cgroup/unified")  # beside version 1; where there is only version 2, the folder above it


def find_leader(supervisor: int) -> int | None:
    """The init of a supervisor's machine: the first PID of the second PID namespace below this one."""
    depth = len(_namespace_pids(os.getpid())) + 2
    pids = [supervisor]
    while pids:
        pid = pids.pop()
        inside = _namespace_pids(pid)
        if len(inside) == depth and inside[-1] == 1:
            return pid
        pids += _children(pid)
    return None


def reboot(leader: int) -> None:
    """Tell a machine's init to reboot, by the signal that systemd(1) has for it; macOS has no such signals."""
    os.kill(leader, signal.SIGRTMIN + 5)


@contextmanager
def paused(leader: int) -> Iterator[None]:
    """Stop all of a machine's processes while this is open, so that its disk does not change."""
    stopped: set[int] = set()
    try:
        while found := _descendants(leader) - stopped:
            for pid in found:
                _signal(pid, signal.SIGSTOP)
            stopped |= found
        yield
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT)


def _descendants(pid: int) -> set[int]:
    """A process and all its descendants."""
    return {pid}.union(*(_descendants(child) for child in _children(pid)))


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


def enter(leader: int, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` in a machine, as root and with its own environment only.

    This host's environment, which may hold keys, ends before the machine is entered, whose root could read it. The
    process joins the control group of the machine's init first: from outside of its groups, the machine's systemd
    could not move it to a scope, and salt-call asks for one.
    """
    inside = [
        "nsenter",
        f"--target={leader}",
        "--user",
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--cgroup",
        "--wdns=/root",
    ]
    clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
    language = [f"TERM={os.environ.get('TERM', 'dumb')}", "LANG=C.UTF-8"]
    return ["sh", "-c", JOIN, "sh", *_control_groups(leader), "--", *clean, *language, *inside, "--", *argv]


def _control_groups(pid: int) -> Iterator[str]:
    """The folders on this host of the control groups by which systemd knows a process."""
    unified = UNIFIED if UNIFIED.is_dir() else UNIFIED.parent
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        root = {"": unified, "name=systemd": UNIFIED.with_name("systemd")}.get(controllers)
        if root and group != "/" and (folder := root / group.lstrip("/")).is_dir():
            yield str(folder)


def wait_booted(leader: int, *, seconds: float) -> str:
    """Wait until a machine's systemd has started everything; `running` or `degraded`. Raises LocalCloudError."""
    command = enter(leader, ["systemctl", "is-system-running"])

    def booted() -> str:
        # A machine that ends stops all of its processes first, and nsenter with them: this would never end by itself.
        state = ""
        with suppress(subprocess.TimeoutExpired):
            asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_ANSWER)
            state = asked.stdout.strip()
        if state not in BOOTED:
            raise LocalCloudError(f"the machine did not finish booting within {seconds:.0f} s (it is {state or 'off'})")
        return state

    return wait_for(booted, "the machine did not boot", seconds=seconds)


def _namespace_pids(pid: int) -> list[int]:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return [int(number) for line in status.splitlines() if line.startswith("NSpid:") for number in line.split()[1:]]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
