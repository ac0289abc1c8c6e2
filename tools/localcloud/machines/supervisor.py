"""Supervises one machine: PID 1 of its own PID and mount namespace, so that the machine cannot outlive it.

Run as a program by machines.py, with a spec in JSON as its argument. It mounts the machine's disk, creates its network
and runs systemd-nspawn until the machine powers off. Every mount, the network namespace and every process live
in namespaces that the kernel removes with this process, and this process ends when its standard input closes:
nothing is left behind, however the local cloud dies. Standard library only.

A machine has a user namespace: its root is USERS on this host, a user that owns the machine's disk and nothing else.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

POWER_OFF_SECONDS = 90  # systemd's own limit for stopping a service
REBOOT = 133  # systemd-nspawn's status when its machine asks for a reboot
USERS = 0x7000_0000  # this host's number of a machine's root, beyond the ranges of useradd, systemd and Podman
USER_COUNT = 65_536
DOOR = "10.0.2.4"  # in a machine's network, the address of what the local cloud serves on this host's loopback
METADATA, HTTP = "169.254.169.254", 80  # where an instance asks about itself


@dataclass(frozen=True)
class Spec:
    """What to run. `layers` are read-only, top first; `binds` are nspawn options; a `command` runs instead of init.

    `given` are folders of this host that become the machine's own; `doors` are the ports of this host's loopback that
    it reaches, at DOOR; `metadata` is the socket in its folder that answers at METADATA, if any.
    """

    name: str
    folder: str  # holds upper/, work/, root/ and console.log
    layers: Sequence[str]
    binds: Sequence[str] = ()
    init: Sequence[str] = ()  # kernel-command-line words for the machine's init
    command: Sequence[str] = ()
    given: Sequence[str] = ()
    doors: Sequence[int] = ()
    metadata: str = ""


def mount_disk(spec: Spec) -> None:
    """Mount the layers under the machine's own writable one.

    `volatile` skips fsync, which matters only if the host crashes: disk_images.py syncs the layers that it keeps.
    """
    lower = ":".join(layer.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,") for layer in spec.layers)
    for path in ("upper", *spec.given):
        os.chown(path, USERS, USERS)
    options = f"lowerdir={lower},upperdir=upper,workdir=work,volatile,index=off"
    subprocess.run(["mount", "-t", "overlay", "local-cloud", "-o", options, "root"], check=True)
    # systemd-nspawn creates a folder per machine here, which would stay on the host.
    Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn"], check=True)


def make_network(doors: Sequence[int], metadata: str) -> None:
    """A network namespace at ./netns; slirp4netns gives it a way out, and this host's DNS as 10.0.2.3.

    Its owner is this host's user namespace, so that a machine's root cannot change its addresses or send raw packets,
    and slirp4netns does not let it reach this host's loopback; relay.py does, for `doors` and `metadata`.
    """
    Path("netns").touch()
    # A machine's root has no say in this namespace, so that ports below 1024 must be free to all for its sshd.
    begin = "ip link set lo up && echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start"
    # Where this host is itself an instance of a cloud, its metadata service would hand out this host's role.
    begin += " && ip route add unreachable 169.254.0.0/16"
    subprocess.run(["unshare", "--net=netns", "sh", "-c", begin], check=True)
    if doors:
        open_doors(DOOR, map(str, doors))
    if metadata:
        open_doors(METADATA, [f"{HTTP}={metadata}"])
    ready, done = os.pipe()
    slirp = [
        "slirp4netns",
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        "--enable-sandbox",
        f"--ready-fd={done}",
        "--netns-type=path",
        "netns",
        "tap0",
    ]
    with Path("slirp.log").open("wb") as log:
        subprocess.Popen(slirp, pass_fds=(done,), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    os.close(done)
    if not os.read(ready, 1):
        raise OSError(Path("slirp.log").read_text().strip() or "slirp4netns gave no network")
    os.close(ready)


def open_doors(address: str, doors: Iterable[str]) -> None:
    """Let the machine reach something of this host at an address of its own; each door is PORT or PORT=SOCKET."""
    inside = ["nsenter", "--net=netns", "ip", "address", "add", f"{address}/32", "dev", "lo"]
    subprocess.run(inside, check=True)
    relay = [sys.executable, str(Path(__file__).with_name("relay.py")), "netns", address, *doors]
    with Path("relay.log").open("ab") as log:
        opened = subprocess.Popen(relay, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
    if opened.stdout is None or not opened.stdout.readline():
        raise OSError(Path("relay.log").read_text().strip() or "relay.py does not listen")


def enter_cgroup(name: str, part: str) -> None:
    """Move this process into a part of the machine's own control group: two systemds must not manage the same one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        mount = cgroup_mount(controllers) if controllers in ("", "name=systemd") else None
        if mount is None:
            continue
        own = f"local-cloud-{name}"
        # Under systemd, the scope that machines.py has requested is delegated to us.
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
    command += [f"--private-users={USERS}:{USER_COUNT}", "--private-users-ownership=off"]
    if spec.command:
        return [*command, "--as-pid2", "--private-network", "--console=pipe", "--", *spec.command]
    # Not --network-namespace-path, which nspawn joins only after it has given up its rights to this namespace.
    command = ["nsenter", "--net=netns", *command, "--capability=CAP_NET_ADMIN", "--kill-signal=SIGRTMIN+4"]
    return [*command, *spec.binds, "--boot", "--console=read-only", "--", *spec.init]


class NspawnProcess:
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
        enter_cgroup(self.spec.name, "supervisor")
        return process

    def wait(self) -> int:
        """Nspawn's status once the machine is off: 0 if it powered off. A reboot starts it again."""
        while self.process.wait() == REBOOT:
            self.process = self._start()
        return self.process.returncode

    def obey(self) -> None:
        """Power the machine off at the line `poweroff` on standard input; end everything when it closes."""
        for line in sys.stdin:
            if line.strip() == "poweroff":
                self.process.terminate()
                threading.Timer(POWER_OFF_SECONDS, self.process.kill).start()
        os._exit(1)


def boot(spec: Spec) -> int:
    """Run the machine until it powers off, and return nspawn's status."""
    make_network(spec.doors, spec.metadata)
    machine = NspawnProcess(spec)
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
