"""Acts inside a running machine from this host; needs root. `leader` is the machine's init as this host numbers it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from localcloud.common import LocalCloudError

# systemd's own signals to PID 1, see systemd(1)
REBOOT = signal.SIGRTMIN + 5

BOOTED = ("running", "degraded")


def find_leader(keeper: int) -> int | None:
    """The init of the machine that a process holds: the first PID of the second PID namespace below this one."""
    depth = len(_namespace_pids(os.getpid())) + 2
    pids = [keeper]
    while pids:
        pid = pids.pop()
        inside = _namespace_pids(pid)
        if len(inside) == depth and inside[-1] == 1:
            return pid
        pids += _children(pid)
    return None


def signal_init(leader: int, number: int) -> None:
    """Send a signal to a machine's init."""
    os.kill(leader, number)


@contextmanager
def standing_still(leader: int) -> Iterator[None]:
    """Inside, none of a machine's processes does anything, so that its disk does not change."""
    still: set[int] = set()
    try:
        while found := _descendants(leader) - still:
            for pid in found:
                _signal(pid, signal.SIGSTOP)
            still |= found
        yield
    finally:
        for pid in still:
            _signal(pid, signal.SIGCONT)


def _descendants(pid: int) -> set[int]:
    """A process, and all that it and its children have begun."""
    return {pid}.union(*(_descendants(child) for child in _children(pid)))


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def enter(leader: int, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` in a machine, as root and with its own environment only."""
    inside = [
        "nsenter",
        f"--target={leader}",
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--cgroup",
        "--wdns=/root",
    ]
    clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
    return [*inside, *clean, f"TERM={os.environ.get('TERM', 'dumb')}", "LANG=C.UTF-8", *argv]


def wait_booted(leader: int, *, seconds: float) -> str:
    """Wait until a machine's systemd has started everything; `running` or `degraded`. Raises LocalCloudError."""
    deadline = time.monotonic() + seconds
    while True:
        asked = subprocess.run(
            enter(leader, ["systemctl", "is-system-running"]), capture_output=True, text=True, check=False
        )
        state = asked.stdout.strip()
        if state in BOOTED:
            return state
        if time.monotonic() > deadline:
            raise LocalCloudError(f"the machine did not finish booting within {seconds:.0f} s (it is {state or 'off'})")
        time.sleep(0.1)


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
