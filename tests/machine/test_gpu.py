"""What depends on a GPU and its packages, on a machine that has the shape of one with a T4."""

from support import gpu_shape
from support.baked_machine import BakedMachine

PACKAGE = "linux-image-rehearsed"
CONTROL = f"Package: {PACKAGE}\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.com>\\nDescription: x\\n"
PROCESSOR = 'pillar={"transcribe": {"device": "cpu"}}'
UNUSED = f"an NVIDIA device is present ({gpu_shape.ADDRESS}) but the worker runs on cpu"


def why(machine: BakedMachine) -> str:
    """Why the machine cannot be applied: the reason of the state that failed by itself."""
    machine.sh("systemctl reset-failed transcribe-gpu; systemctl stop transcribe-gpu", check=False)
    failed = machine.apply().failed
    return failed["gpu-prepared"] if "gpu-prepared" in failed else failed["verify-machine"]


def test_kernel_and_driver_packages_are_held(own: BakedMachine) -> None:
    own.wait_serving()
    own.sh(f"mkdir -p /run/deb/DEBIAN; printf '{CONTROL}' >/run/deb/DEBIAN/control")
    own.sh("dpkg-deb --build /run/deb /run/x.deb; dpkg --install /run/x.deb")
    applied = own.apply()
    assert applied.failed == {}
    assert applied.changed == {f"gpu-{PACKAGE}-held"}
    assert PACKAGE in own.sh("apt-mark showhold")
    assert own.apply().changed == set()


def test_a_gpu_that_is_not_used_is_a_failure_that_says_why(own: BakedMachine) -> None:
    """One thing after the other is put right: the kernel's module, the card's node, the unified memory, the worker."""
    own.wait_serving()
    own.sh(gpu_shape.ON_THE_BUS)
    assert "has no nvidia module" in why(own)
    own.sh(gpu_shape.MODULE + gpu_shape.tool("nvidia-modprobe", gpu_shape.UVM))
    assert "there is no /dev/nvidia0" in why(own)
    own.sh(f"rm -f {gpu_shape.TOOLS}/nvidia-modprobe /dev/nvidia-uvm; {gpu_shape.tool('nvidia-smi', gpu_shape.SMI)}")
    assert "there is no /dev/nvidia-uvm" in why(own)
    own.sh(gpu_shape.WHOLE + "systemctl restart transcribe-worker")
    own.wait("curl --silent localhost:8000/ready | grep -q 'worker runs on'", seconds=120)
    assert UNUSED in why(own)
    own.wait("grep -q applications-clocks /run/t4.log")
    assert own.verify(clip=False)["gpu"] == UNUSED
    applied = own.apply(PROCESSOR)  # the one way to want it so
    assert applied.failed == {}
    assert {"gpu-unit", "config-written"} <= applied.changed
    # The virtual environment stays what it was baked with: the lock is decided once.
    assert "venv-synced" not in applied.changed
    own.wait_serving()
