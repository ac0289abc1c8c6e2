"""The shape of a machine with a T4, laid over one of the local cloud: what the PCI bus shows, and the driver's tools.

All of it is done to the machine from outside, by bind mounts and files; nothing in the product knows of it.
"""

ADDRESS = "0000:00:1e.0"
TOOLS = "/usr/local/sbin"  # before the system's own in every PATH
ON_THE_BUS = f"""
mkdir -p /run/t4/{ADDRESS}
echo 0x10de >/run/t4/{ADDRESS}/vendor
echo 0x030200 >/run/t4/{ADDRESS}/class
mountpoint -q /sys/bus/pci/devices && umount /sys/bus/pci/devices
mount --bind /run/t4 /sys/bus/pci/devices
"""
SMI = "touch /dev/nvidia0"  # the card's node is not there until this has run
UVM = "touch /dev/nvidia-uvm"


def tool(name: str, does: str) -> str:
    """A script that lays one of the driver's tools on the machine; it notes its calls."""
    lines = f'#!/bin/sh\\necho "{name} $*" >>/run/t4.log\\n{does}\\n'
    return f"printf '{lines}' >{TOOLS}/{name}; chmod 0755 {TOOLS}/{name}\n"


MODULE = tool("modinfo", ":") + tool("modprobe", ":")
WHOLE = ON_THE_BUS + MODULE + tool("nvidia-smi", SMI) + tool("nvidia-modprobe", UVM)
