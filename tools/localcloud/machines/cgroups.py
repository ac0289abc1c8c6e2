"""Empties and removes the control groups that supervisor.py creates for machines."""

import contextlib
import os
import signal
import time
from pathlib import Path

from localcloud.machines.supervisor import cgroup_mount


def remove(name: str, *, patience: float = 2.0) -> None:
    """Kill what is left in a machine's control groups, then remove them; `patience` is in seconds."""
    mounts = [cgroup_mount(controllers) for controllers in ("", "name=systemd")]
    deadline = time.monotonic() + patience
    for group in [mount / f"local-cloud-{name}" for mount in mounts if mount]:
        while group.exists() and time.monotonic() < deadline:
            for inner, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    _kill_all(Path(inner))
                    Path(inner).rmdir()
            time.sleep(0.02)


def _kill_all(group: Path) -> None:
    for pid in map(int, (group / "cgroup.procs").read_text().split()):
        if pid:  # 0 stands for a process outside this PID namespace; kill(0) would hit our own group
            os.kill(pid, signal.SIGKILL)
