"""Which process holds something, told so that another one on the same computer can see whether it still lives."""

import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
STATE, BEGAN = 0, 19  # of what follows the program's name in /proc/PID/stat: proc_pid_stat(5)
GONE = "ZX"  # states of a process that has ended


@dataclass(frozen=True)
class Process:
    """`place` is one boot of one computer and a PID namespace of it, empty where that cannot be told; `began` is when
    the process began, in the kernel's own count: numbers are used again.
    """

    place: str
    pid: int
    began: str

    @property
    def dead(self) -> bool:
        """Whether it has surely ended; False as well where that cannot be seen from here."""
        return bool(self.place) and self.place == _place() and _began(self.pid) != self.began


def of(pid: int) -> Process:
    """A process of this computer."""
    return Process(_place(), pid, _began(pid))


def somebody() -> str:
    """Who runs this, for a person: user@computer."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}"


def _place() -> str:
    try:
        return f"{(PROC / 'sys/kernel/random/boot_id').read_text().strip()} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Empty when there is no such process."""
    try:
        told = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if told[STATE] in GONE else told[BEGAN]
