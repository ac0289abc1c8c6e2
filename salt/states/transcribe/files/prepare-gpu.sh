#!/bin/sh
# Makes the GPU usable by a process without privileges: the worker can neither load a module nor make a device node.
# What it needs is there when this ends well; otherwise the last line says what is missing. Runs at every boot.
#
# prepare-gpu.sh WANTED PCI DEV: the configuration's device, the folder of PCI devices, and the folder of device nodes.
set -u
wanted=$1 pci=$2 dev=$3
attempts=60 # half a second each: the kernel may still be at work on the card

fail() {
  echo "transcribe-gpu: $*" >&2
  exit 1
}

on_the_bus() {
  for device in "$pci"/*; do
    [ -r "$device/vendor" ] || continue
    case "$(cat "$device/vendor") $(cat "$device/class")" in '0x10de 0x03'*) return 0 ;; esac
  done
  return 1
}

if [ "$wanted" = cpu ]; then
  echo 'transcribe-gpu: the configuration wants the processor'
  exit 0
fi
if ! on_the_bus; then
  echo 'transcribe-gpu: no NVIDIA device on the PCI bus'
  exit 0
fi

kernel=$(uname -r)
modinfo -k "$kernel" nvidia >/dev/null 2>&1 ||
  fail "the kernel $kernel has no nvidia module: its driver was built for another kernel, or is not installed"

# Each tool makes the nodes that the others do not; which of them there are depends on the driver's packages.
make_nodes() {
  modprobe nvidia-uvm
  nvidia-modprobe -u -c 0
  nvidia-smi >/dev/null
}

said=
while [ "$attempts" -gt 0 ]; do
  said=$(make_nodes 2>&1 | tail -n 1)
  [ -e "$dev/nvidia0" ] && [ -e "$dev/nvidia-uvm" ] && break
  attempts=$((attempts - 1))
  sleep 0.5
done
for node in nvidia0 nvidia-uvm; do
  [ -e "$dev/$node" ] || fail "an NVIDIA device is on the PCI bus, but there is no $dev/$node${said:+ ($said)}"
done

# Keeps the driver loaded between processes. A T4's clocks in MHz, memory and graphics: another GPU refuses them.
nvidia-smi --persistence-mode=1 >/dev/null || fail 'nvidia-smi cannot reach the driver; see nvidia-smi'
nvidia-smi --applications-clocks=5001,1590 >/dev/null 2>&1
echo 'transcribe-gpu: ready'
