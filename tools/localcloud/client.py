"""Starts the local cloud or finds the running one, and offers what the AWS APIs do not: shells, ports, machines."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from localcloud import host
from localcloud.hub import models
from localcloud.machines import base_image, guest, machines, supervisor

from .common import Folders, LocalCloudError, Say, say_on_stderr, wait_for
from .endpoint import MODEL, Endpoint, Secret

START_SECONDS = 60.0
BOOT_SECONDS = 120.0
STARTED: list["subprocess.Popen[bytes]"] = []  # reaped if they end before this process does


def folders_of(root: Path) -> Folders:
    """The local cloud's folders in a checkout of the project."""
    return Folders.of(root / ".cache" / "local-cloud")


class LocalCloud:
    """The interface for the launcher and the tests; `root` is the project's folder. Raises only LocalCloudError."""

    @staticmethod
    def ensure(root: Path, *, base: str = base_image.DEFAULT_BASE, say: Say = say_on_stderr) -> Endpoint:
        """Prepare this host, then start the local cloud or find it running; it stays while this process lives.

        The endpoint's `source_ami` is that of the base. Needs root.
        """
        folders = folders_of(root)
        host.prepare(say)
        folders.make_state()
        with (folders.state / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            base_image.ensure(folders, say, base)
            _ensure_model(folders, say)
            endpoint = _running(folders) or _start(folders)
            _ask(folders, "POST", "users", {"pid": os.getpid()})  # it stays while this process lives
            return replace(endpoint, source_ami=base_image.source_ami(base))

    @staticmethod
    @contextmanager
    def planning(root: Path) -> Iterator[Endpoint]:
        """The running local cloud, or one inside this process that knows the images and boots nothing."""
        folders = folders_of(root)
        folders.make_state()
        endpoint = _running(folders)
        if endpoint:
            yield endpoint
            return
        _ensure_model(folders, say_on_stderr)
        from .daemon import in_process

        with in_process(folders) as endpoint:
            yield endpoint

    @staticmethod
    def stop(root: Path) -> bool:
        """Stop the local cloud and its machines; the images stay. Returns whether one was running."""
        folders = folders_of(root)
        if not _is_served(folders):
            return False
        _ask(folders, "POST", "stop")
        wait_for(lambda: not _is_served(folders), "the local cloud did not stop", seconds=START_SECONDS)
        return True

    @staticmethod
    def shell(root: Path, image_id: str, argv: Sequence[str], *, boot: bool = True) -> int:
        """Run a command on an image, in a machine booted from it or only on its disk; returns its exit code."""
        if not boot:
            return _on_disk(folders_of(root), image_id, argv)
        with LocalCloud.machine(root, image_id) as machine_id:
            return LocalCloud.run(root, machine_id, argv)

    @staticmethod
    @contextmanager
    def machine(root: Path, image_id: str) -> Iterator[str]:
        """A machine booted from an image with cloud-init disabled, while this is open."""
        folders = folders_of(root)
        machine_id = str(_ask(folders, "POST", "machines", {"image": image_id, "owner": os.getpid()})["id"])
        try:
            LocalCloud.wait_booted(root, machine_id)
            yield machine_id
        finally:
            _ask(folders, "DELETE", f"machines/{machine_id}")

    @staticmethod
    def leader(root: Path, machine_id: str, *, seconds: float = 10.0) -> int:
        """The PID on this host of a running machine's init."""
        path = f"machines/{machine_id}"
        return wait_for(
            lambda: int(_ask(folders_of(root), "GET", path)["leader"]), f"{machine_id} did not start", seconds=seconds
        )

    @staticmethod
    def wait_booted(root: Path, machine_id: str, *, seconds: float = BOOT_SECONDS) -> str:
        """Wait until a machine's systemd has started everything; returns `running` or `degraded`."""
        return guest.wait_booted(LocalCloud.leader(root, machine_id), seconds=seconds)

    @staticmethod
    def run(root: Path, machine_id: str, argv: Sequence[str]) -> int:
        """Run a command as root in a running machine, with this process' standard streams; returns its exit code."""
        return subprocess.run(LocalCloud.command(root, machine_id, argv), check=False).returncode

    @staticmethod
    def command(root: Path, machine_id: str, argv: Sequence[str]) -> list[str]:
        """The command of this host that runs `argv` as root in a running machine, for subprocess."""
        return guest.enter(LocalCloud.leader(root, machine_id), argv)

    @staticmethod
    def notify_spot(root: Path, machine_id: str) -> None:
        """Tell a machine that AWS takes it back in two minutes, and do that."""
        _ask(folders_of(root), "POST", f"machines/{machine_id}/spot-notice")

    @staticmethod
    def url_of(root: Path, machine_id: str, port: int) -> str:
        """A URL on this host that is forwarded to `port` on a machine's loopback."""
        return str(_ask(folders_of(root), "GET", f"machines/{machine_id}/ports/{port}")["url"])


def _ensure_model(folders: Folders, say: Say) -> None:
    if not models.folder_of(MODEL, cache=folders.cache).is_dir():
        say(f"fetching and converting the rehearsal's model, {MODEL}: once")
    try:
        models.model_dir(MODEL, cache=folders.cache)
    except models.ModelError as error:
        raise LocalCloudError(str(error)) from None


def _is_served(folders: Folders) -> bool:
    """Whether a daemon holds the state folder's lock."""
    try:
        with folders.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _read_secret(folders: Folders) -> Secret:
    return Secret(json.loads(folders.secret.read_text()))


def _read(folders: Folders) -> Endpoint | None:
    """The endpoint of the process that holds the lock. That of one which was killed may be anybody's by now."""
    try:
        ports = json.loads(folders.endpoint.read_text())
        return Endpoint.on(_read_secret(folders), **ports) if _is_served(folders) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None
    except PermissionError:
        raise LocalCloudError(f"{folders.state} belongs to root: run the same command with sudo") from None


def _running(folders: Folders) -> Endpoint | None:
    """The running local cloud; one with outdated code is stopped first, unless it has running machines."""
    from .daemon import code_version

    try:
        endpoint = _read(folders)
        if endpoint is None:
            return None
        health = _ask(folders, "GET", "health")
        if health["version"] == code_version() or health["running"] or os.geteuid() != 0:
            return endpoint
        _ask(folders, "POST", "stop")
    except LocalCloudError:
        pass  # it is about to end
    wait_for(lambda: not _is_served(folders), "the previous local cloud did not end", seconds=START_SECONDS)
    return None


def _start(folders: Folders) -> Endpoint:
    folders.forget_endpoint()  # of one that was killed
    tools = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(tools), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "localcloud", "serve", "--state", str(folders.state)]
    with folders.log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    STARTED.append(process)
    with suppress(LocalCloudError):
        wait_for(lambda: _read(folders) or process.poll() is not None, "no endpoint", seconds=START_SECONDS)
    if endpoint := _read(folders):
        return endpoint
    lines = folders.log.read_text(errors="replace").strip().splitlines()
    raise LocalCloudError(
        f"the local cloud did not start; {folders.log} ends with: {lines[-1] if lines else 'nothing'}"
    )


def _ask(folders: Folders, method: str, path: str, body: object = None) -> dict[str, Any]:
    endpoint = _read(folders)
    if endpoint is None:
        raise LocalCloudError("the local cloud is not running")
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {_read_secret(folders).control_token}"}
    request = Request(f"{endpoint.api_url}/_cloud/{path}", data, headers, method=method)
    try:
        with urlopen(request, timeout=START_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except HTTPError as error:
        raise LocalCloudError(_reason(error)) from None
    except (URLError, OSError) as error:
        raise LocalCloudError(f"the local cloud does not answer at {endpoint.api_url}: {error}") from None


def _reason(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError):
        return f"the local cloud answered {error.code}"


def _on_disk(folders: Folders, image_id: str, argv: Sequence[str]) -> int:
    disk = _ask(folders, "GET", f"images/{image_id}")["disk"]
    folders.machines.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folders.machines, prefix="disk-") as scratch:
        for name in ("upper", "work", "root"):
            Path(scratch, name).mkdir()
        spec = supervisor.Spec(name=f"disk-{os.getpid()}", folder=scratch, layers=tuple(disk), command=tuple(argv))
        return subprocess.run(machines.supervisor_command(spec), check=False).returncode
