"""What depends on a GPU and its packages, with a device node and packages made up for the test."""

from support.baked_machine import BakedMachine

PACKAGE = "linux-image-rehearsed"
CONTROL = f"Package: {PACKAGE}\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.com>\\nDescription: x\\n"
FAKE = '#!/bin/sh\\necho "$*" >>/run/nvidia-smi.log\\n'


def test_gpu_is_set_up_and_its_packages_are_held(own: BakedMachine) -> None:
    own.wait_serving()
    own.sh(f"mkdir -p /run/deb/DEBIAN; printf '{CONTROL}' >/run/deb/DEBIAN/control")
    own.sh("dpkg-deb --build /run/deb /run/x.deb; dpkg --install /run/x.deb")
    own.sh(f"printf '{FAKE}' >/usr/bin/nvidia-smi; chmod +x /usr/bin/nvidia-smi; touch /dev/nvidia0")
    applied = own.apply()
    assert applied.failed == {}
    assert {"tuning-transcribe-gpu-unit", "tuning-transcribe-gpu-enabled", f"tuning-{PACKAGE}-held"} <= applied.changed
    # The venv stays what it was baked with: the lock is decided once.
    assert "venv-synced" not in applied.changed
    own.wait("grep -q applications-clocks /run/nvidia-smi.log")
    assert "--persistence-mode=1" in own.sh("cat /run/nvidia-smi.log")
    assert PACKAGE in own.sh("apt-mark showhold")
    assert own.apply().changed == set()
