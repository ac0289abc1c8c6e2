"""Room on the disk, looked at before anything is installed."""

import shutil
from pathlib import Path

from driver.parameters import DriverError

DISK = Path("/")
PCI = Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"  # the vendor's number on the PCI bus
NEEDED_GB = {"cuda": 14.0, "cpu": 6.0}  # at the peak of a bake, by its lock: downloads beside what they become


def has_gpu() -> bool:
    """Whether an NVIDIA device is on the PCI bus, with a driver or without."""
    return any(vendor.read_text().strip() == NVIDIA for vendor in PCI.glob("*/vendor"))


def needed_gb(lock: str) -> float:
    """Free space that a bake of this machine takes, in units of 10^9 bytes; `lock` is the pillar's: auto, cpu, cuda."""
    return NEEDED_GB.get(lock) or NEEDED_GB["cuda" if has_gpu() else "cpu"]


def free_gb() -> float:
    """Free space of the disk that becomes the image, in units of 10^9 bytes."""
    return shutil.disk_usage(DISK).free / 1e9


def require_room(lock: str) -> None:
    """Raises DriverError if a bake would run out of space."""
    needed, free = needed_gb(lock), free_gb()
    if free < needed:
        raise DriverError(f"the disk has {free:.1f} GB free, a bake needs {needed:.0f}: set [instance] volume_gb")
