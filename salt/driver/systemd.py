"""Queries to systemd: whether the service's units are active, and since when."""

import shutil
import subprocess
import time
from collections.abc import Mapping

from driver.parameters import DriverError

UNITS = ("transcribe-api.service", "transcribe-worker.service")
READY_SECONDS = 900  # a model on a volume that is still being fetched from its snapshot loads slowly
USUAL_GB = 40  # of such a volume
POLL_SECONDS = 0.2


def wait_ready() -> float:
    """Wait until every unit is active, which for units of Type=notify means ready, and return the seconds from boot
    to then. Raises DriverError if that takes too long.
    """
    seconds = READY_SECONDS * max(1.0, shutil.disk_usage("/").total / 1024**3 / USUAL_GB)
    end = time.monotonic() + seconds
    while True:
        shown = {unit: show(unit) for unit in UNITS}
        waiting = {unit: properties for unit, properties in shown.items() if properties["ActiveState"] != "active"}
        if not waiting:
            entered = [int(properties["ActiveEnterTimestampMonotonic"]) for properties in shown.values()]
            return round((max(entered) - boot_microseconds()) / 1e6, 3)
        if time.monotonic() > end:
            states = ", ".join(f"{unit} is {properties['ActiveState']}" for unit, properties in waiting.items())
            raise DriverError(f"not ready {seconds:.0f} s after boot: {states}")
        time.sleep(POLL_SECONDS)


def boot_microseconds() -> int:
    """When this machine's boot began, on the monotonic clock: with the kernel, or in a container with systemd."""
    container = subprocess.run(["systemd-detect-virt", "--container", "--quiet"], check=False).returncode == 0
    return int(_properties("show", "--property=UserspaceTimestampMonotonic").popitem()[1]) if container else 0


def show(unit: str) -> Mapping[str, str]:
    """The state of a unit, and when it became active."""
    return _properties("show", unit, "--property=ActiveState,ActiveEnterTimestampMonotonic")


def _properties(*arguments: str) -> dict[str, str]:
    done = subprocess.run(["systemctl", *arguments], check=True, capture_output=True, text=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
