"""Holds one machine: PID 1 of a PID and mount namespace of its own, so that the machine cannot outlive it.

Run as a program by machines.py, with a spec in JSON as its argument. It mounts the machine's disk, makes its network
and runs systemd-nspawn until the machine powers off. Every mount, the network namespace and every process live
in namespaces that the kernel takes away with this process, and this process ends when its standard input
closes: nothing is left behind, however the local cloud dies. Standard library only.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POWER_OFF_SECONDS = 90  # systemd's own limit for stopping a service
REBOOT = 133  # systemd-nspawn's status when its machine asks for a reboot


@dataclass(frozen=True)
class Spec:
    """What to hold. `layers` are read-only, top first; `binds` are nspawn options; a `command` runs instead of init."""

    name: str
    folder: str  # holds upper/, work/, root/ and console.log
    layers: Sequence[str]
    binds: Sequence[str] = ()
    init: Sequence[str] = ()  # kernel-command-line words for the machine's init
    command: Sequence[str] = ()


def mount_disk(spec: Spec) -> None:
    """Mount the layers under the machine's own writable one.

    `volatile` leaves out fsync, which only a crash of the host could need: images.py syncs what it keeps.
    """
    lower = ":".join(layer.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,") for layer in spec.layers)
    options = f"lowerdir={lower},upperdir=upper,workdir=work,volatile,index=off"
    subprocess.run(["mount", "-t", "overlay", "local-cloud", "-o", options, "root"], check=True)
    # systemd-nspawn keeps a folder per machine here, and would leave it on the host.
    Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn"], check=True)


def make_network() -> None:
    """A network namespace at ./netns; slirp4netns shows it this host's loopback as 10.0.2.2, its DNS as 10.0.2.3."""
    Path("netns").touch()
    subprocess.run(["unshare", "--net=netns", "ip", "link", "set", "lo", "up"], check=True)
    ready, told = os.pipe()
    slirp = ["slirp4netns", "--configure", "--mtu=65520", f"--ready-fd={told}", "--netns-type=path", "netns", "tap0"]
    with Path("slirp.log").open("wb") as log:
        subprocess.Popen(slirp, pass_fds=(told,), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    os.close(told)
    if not os.read(ready, 1):
        raise OSError(Path("slirp.log").read_text().strip() or "slirp4netns gave no network")
    os.close(ready)


def enter_cgroup(name: str, part: str) -> None:
    """Move this process into a part of the machine's own control group: two systemds must not manage the same one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        mount = cgroup_mount(controllers) if controllers in ("", "name=systemd") else None
        if mount is None:
            continue
        own = f"local-cloud-{name}"
        # Below a systemd, the scope that machines.py asked it for is ours to divide.
        above, found, _ = path.lstrip("/").partition(own + ".scope")
        group = mount / (above + found if found else own) / part
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()))


def cgroup_mount(controllers: str) -> Path | None:
    """Where the unified hierarchy (controllers "") or a named one is mounted, if it is."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == ("cgroup" if controllers else "cgroup2") and (not controllers or controllers in options.split(",")):
            return Path(fields.split(" ")[4])
    return None


def nspawn(spec: Spec) -> list[str]:
    """The command that boots the machine, or runs one program on its disk."""
    command = ["systemd-nspawn", "--quiet", "--directory=root", "--register=no", "--keep-unit"]
    command += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--machine={spec.name}"]
    if spec.command:
        return [*command, "--as-pid2", "--private-network", "--console=pipe", "--", *spec.command]
    command += ["--network-namespace-path=netns", "--capability=CAP_NET_ADMIN", "--kill-signal=SIGRTMIN+4"]
    return [*command, *spec.binds, "--boot", "--console=read-only", "--", *spec.init]


class Machine:
    """The machine's nspawn process; `obey` acts on it from another thread."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        enter_cgroup(self.spec.name, "box")  # what is started inherits it
        environment = {**os.environ, "SYSTEMD_NSPAWN_TMPFS_TMP": "0"}  # /tmp is on the disk, as on an instance
        with Path("console.log").open("ab") as console, Path("nspawn.log").open("ab") as log:
            process = subprocess.Popen(
                nspawn(self.spec), stdin=subprocess.DEVNULL, stdout=console, stderr=log, env=environment
            )
        enter_cgroup(self.spec.name, "keeper")
        return process

    def wait(self) -> int:
        """Nspawn's status once the machine is off: 0 if it powered off. A reboot starts it again."""
        while self.process.wait() == REBOOT:
            self.process = self._start()
        return self.process.returncode

    def obey(self) -> None:
        """Power the machine off when standard input says so; end everything when it closes."""
        for line in sys.stdin:
            if line.strip() == "poweroff":
                self.process.terminate()
                threading.Timer(POWER_OFF_SECONDS, self.process.kill).start()
        os._exit(1)


def boot(spec: Spec) -> int:
    """Run the machine until it powers off, and return nspawn's status."""
    make_network()
    machine = Machine(spec)
    threading.Thread(target=machine.obey, daemon=True).start()
    return machine.wait()


def main(arguments: Sequence[str]) -> int:
    spec = Spec(**json.loads(arguments[0]))
    os.chdir(spec.folder)
    try:
        mount_disk(spec)
        if spec.command:
            return subprocess.run(nspawn(spec), check=False).returncode
        return boot(spec)
    except (OSError, subprocess.SubprocessError) as error:
        with Path("nspawn.log").open("a") as log:
            log.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
