"""Real machines: systemd-nspawn on an overlay of read-only layers, each under its own supervisor process."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from localcloud.common import Folders, LocalCloudError
from localcloud.machines import cgroups, guest, host_mounts, supervisor

SEED = f"{host_mounts.RUN}/seed/"
CONSOLE_BYTES = 65_536  # what EC2 keeps of a console
HARVEST_SECONDS = 2.0


@dataclass(frozen=True)
class LaunchRequest:
    """What to boot: the disk's layers, top first, and user-data; without user-data cloud-init is disabled."""

    id: str
    disk: tuple[Path, ...]
    user_data: bytes | None = None
    owner: int | None = None  # a PID; the machine ends when that process does
    has_role: bool = False  # it has a metadata service, which is served at its `metadata_socket`


class LocalMachine:
    """One machine, running or off."""

    def __init__(self, launch: LaunchRequest, folders: Folders, doors: tuple[int, ...]) -> None:
        self.launch = launch
        self.doors = doors
        self.disk = launch.disk
        self.folders = folders
        self.folder = folders.machines / launch.id
        self.folder.mkdir(parents=True)
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(mode=0o755)
        self.process: subprocess.Popen[bytes] | None = None
        self.settled = threading.Event()  # it is off, and `on_off` has been called
        self._mount_targets: list[str] = []

    @property
    def metadata_socket(self) -> Path:
        """Where this host answers what the machine asks its metadata service."""
        return self.folder / "metadata.sock"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Boot it. Raises LocalCloudError if its supervisor cannot be started."""
        binds = host_mounts.binds(self.folder, self.folders)
        host_mounts.lend_archives(self.folder, self.folders)
        init = ["cloud-init=disabled"]
        if self.launch.user_data is not None:
            binds.append(host_mounts.Bind(self._seed(self.launch.user_data), SEED))
            init = [f"ds=nocloud;s={SEED}", "network-config=disabled"]
        given = [bind.source for bind in binds if bind.writable or bind.target == SEED]
        self._mount_targets = [bind.target for bind in binds if not self._on_disk(bind.target)]
        spec = supervisor.Spec(
            name=self.launch.id,
            folder=str(self.folder),
            layers=tuple(str(path) for path in self.disk),
            binds=tuple(bind.option() for bind in binds),
            init=tuple(init),
            given=tuple(str(path) for path in given),
            doors=self.doors,
            metadata=self.metadata_socket.name if self.launch.has_role else "",
        )
        # A volatile overlay refuses to be mounted again with the work folder of the last time.
        shutil.rmtree(self.folder / "work")
        (self.folder / "work").mkdir()
        self.process = subprocess.Popen(
            supervisor_command(spec), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _seed(self, user_data: bytes) -> Path:
        seed = self.folder / "seed"
        seed.mkdir(mode=0o700, exist_ok=True)
        (seed / "user-data").write_bytes(user_data)
        (seed / "meta-data").write_text(json.dumps({"instance-id": self.launch.id, "local-hostname": self.launch.id}))
        return seed

    def _on_disk(self, target: str) -> bool:
        return any((layer / target.lstrip("/")).exists() for layer in (self.folder / "upper", *self.disk))

    def copy_disk(self, copy: Callable[[Path], Path]) -> Path:
        """What it has written so far, as a layer that `copy(upper)` makes; it is paused meanwhile and then runs on."""
        leader = guest.find_leader(self.process.pid) if self.process else None
        with guest.paused(leader) if leader else contextlib.nullcontext():
            layer = copy(self.folder / "upper")
        self.remove_mount_points(layer)
        return layer

    def remove_mount_points(self, upper: Path) -> None:
        """Remove the empty mount points that systemd-nspawn created for this host's bind mounts."""
        for target in self._mount_targets:
            path = upper / target.lstrip("/")
            if not path.parent.resolve().is_relative_to(upper.resolve()):
                continue  # by a link of the machine's: this host's own files may lie there
            if path.is_file() and path.stat().st_size == 0:
                path.unlink()
            while path != upper and not any((layer / path.relative_to(upper)).exists() for layer in self.disk):
                try:
                    path.rmdir() if path.exists() else None
                except OSError:
                    break  # something else is in it, and that is the machine's own
                path = path.parent

    def send(self, word: str) -> None:
        """Send a command to the supervisor."""
        if self.process and self.process.stdin:
            with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, and its pipe is closed
                self.process.stdin.write(f"{word}\n".encode())
                self.process.stdin.flush()

    def kill(self) -> None:
        """Power it off at once: the supervisor ends when its stdin closes, and everything in its namespaces with it."""
        if self.process:
            if self.process.stdin:
                self.process.stdin.close()
            self.process.wait()
        cgroups.remove(self.launch.id)

    def leader(self) -> int:
        """The machine's init, as this host numbers it. Raises LocalCloudError if it is not there (yet)."""
        leader = guest.find_leader(self.process.pid) if self.process else None
        if leader:
            return leader
        raise LocalCloudError(f"machine {self.launch.id} is not running{self.trouble()}")

    def trouble(self) -> str:
        """The last error of its supervisor or of nspawn, as the end of a sentence."""
        log = self.folder / "nspawn.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return f": {lines[-1]}" if lines else ""

    def console(self) -> bytes:
        """The last 64 KiB of its console."""
        try:
            with (self.folder / "console.log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - CONSOLE_BYTES))
                return file.read()
        except FileNotFoundError:
            return b""


class LocalMachines:
    """Every machine of this local cloud. `on_off(id, clean)` is called whenever one has gone off."""

    def __init__(self, folders: Folders, on_off: Callable[[str, bool], None]) -> None:
        self.folders = folders
        self.doors: tuple[int, ...] = ()  # ports of this host's loopback that machines reach
        self._on_off = on_off
        self._machines: dict[str, LocalMachine] = {}

    def launch(self, launch: LaunchRequest) -> LocalMachine:
        """Boot a new machine. Raises LocalCloudError."""
        machine = self._machines[launch.id] = LocalMachine(launch, self.folders, self.doors)
        self._start(machine)
        return machine

    def _start(self, machine: LocalMachine) -> None:
        machine.settled.clear()
        machine.start()
        threading.Thread(target=self._watch, args=(machine, machine.process), daemon=True).start()

    def _watch(self, machine: LocalMachine, process: "subprocess.Popen[bytes]") -> None:
        while True:
            try:
                status = process.wait(HARVEST_SECONDS)
                break
            except subprocess.TimeoutExpired:
                host_mounts.keep_archives(machine.folder, machine.folders)
                if machine.launch.owner and not Path(f"/proc/{machine.launch.owner}").exists():
                    self.terminate(machine.launch.id)
                    return
        if process.stdin:
            process.stdin.close()
        cgroups.remove(machine.launch.id)
        host_mounts.keep_archives(machine.folder, machine.folders)
        self._on_off(machine.launch.id, status == 0)
        machine.settled.set()

    def get(self, machine_id: str) -> LocalMachine:
        """Raises LocalCloudError if it is unknown."""
        if machine_id not in self._machines:
            raise LocalCloudError(f"the local cloud has no machine {machine_id}")
        return self._machines[machine_id]

    def start(self, machine_id: str) -> None:
        """Boot a machine that is off, on its own disk."""
        self._start(self.get(machine_id))

    def terminate(self, machine_id: str) -> None:
        """End a machine and delete its disk; its console can still be read."""
        machine = self.get(machine_id)
        machine.kill()
        machine.disk = ()
        for path in machine.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def freeze(self, machine_id: str, take: Callable[[Path], Path]) -> Path:
        """Turn what a machine that is off has written into a layer, which `take(upper)` moves into place."""
        machine = self.get(machine_id)
        if machine.running:
            raise LocalCloudError(f"machine {machine_id} must be off to be imaged")
        machine.remove_mount_points(machine.folder / "upper")
        layer = take(machine.folder / "upper")
        (machine.folder / "upper").mkdir(mode=0o755)
        machine.disk = (layer, *machine.disk)
        return layer

    def known(self) -> set[str]:
        """The ids of all machines, also of ended ones."""
        return set(self._machines)

    def running(self) -> list[str]:
        return [machine_id for machine_id, machine in list(self._machines.items()) if machine.running]

    def off(self) -> list[str]:
        """The ids of machines that are off and still have a disk."""
        return [
            machine_id for machine_id, machine in list(self._machines.items()) if machine.disk and not machine.running
        ]

    def disks(self) -> set[Path]:
        """Every layer that a machine uses."""
        return {path for machine in list(self._machines.values()) for path in machine.disk}

    def sweep(self) -> None:
        """Delete what a killed local cloud has left on disk; its processes and mounts ended with it."""
        for folder in self.folders.machines.iterdir() if self.folders.machines.is_dir() else ():
            cgroups.remove(folder.name)
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """End every machine."""
        for machine_id in list(self._machines):
            self.terminate(machine_id)


def supervisor_command(spec: supervisor.Spec) -> list[str]:
    """The command that runs a machine's supervisor in its own namespaces, and under systemd in its own scope."""
    command = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    if Path("/run/systemd/system").is_dir():
        scope = ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes"]
        command = [*scope, f"--unit=local-cloud-{spec.name}", "--", *command]
    return [*command, "--", sys.executable, str(Path(supervisor.__file__)), json.dumps(asdict(spec))]
