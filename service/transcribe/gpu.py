"""The GPU of this machine as its buses show it, whether or not it can be used: no driver and no torch is needed."""

from pathlib import Path

PCI = Path("/sys/bus/pci/devices")
DRIVER = Path("/sys/module/nvidia/version")
NVIDIA = "0x10de"
DISPLAY = "0x03"  # the class of VGA and 3D controllers; a card's sound and USB devices have others


def devices(pci: Path | None = None) -> list[str]:
    """The addresses of the NVIDIA display and 3D controllers on the PCI bus."""
    found = sorted((pci or PCI).glob("*"))
    return [path.name for path in found if _read(path / "vendor") == NVIDIA and _read(path / "class")[:4] == DISPLAY]


def driver_version() -> str | None:
    """The version of the NVIDIA driver that the kernel has loaded."""
    return _read(DRIVER) or None


def unused(present: list[str], *, wanted: str, used: str | None) -> str:
    """Why a machine with these GPUs is not right when the worker runs on `used`, or ''.

    `wanted` is the configuration's device: "cpu" is the only way to leave a GPU unused.
    """
    if not present or wanted == "cpu" or used == "cuda":
        return ""
    return f"an NVIDIA device is present ({', '.join(present)}) but the worker runs on {used or 'nothing yet'}"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip().lower()
    except (OSError, UnicodeDecodeError):
        return ""
