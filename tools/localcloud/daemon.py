"""The local cloud's own process: it outlives the launcher, and ends soon after its last user and its last machine."""

import fcntl
import hashlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from localcloud.aws import persistence
from localcloud.aws.moto_instances import MotoRegion

from .cloud import Backend
from .common import Folders, LocalCloudError, write_json
from .endpoint import BUCKET, REGION, Endpoint, Secret
from .server import Activity, LoopbackServer, Process, aws_app, control_app, hub_app
from .users import Users

QUIET_SECONDS = 120.0  # since the last request, once no machine runs and no process that started or found it lives
KEPT_SECONDS = 3600.0  # the same while a machine is off, which a launcher may go on with, or a group wants none
TICK_SECONDS = 1.0


def code_version() -> str:
    """A digest of the local cloud's code and of its bases' files, so that a process with old ones is noticed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Daemon:
    """Serves one state folder."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.secret = Secret()
        self.activity = Activity()
        self.activity.touch()
        self.users = Users()
        self._ended = threading.Event()
        moto = MotoRegion(REGION)
        moto.create_bucket(BUCKET)
        persistence.restore(folders)
        self.cloud = Backend(folders, moto)
        version = code_version()
        process = Process({"version": version, "pid": os.getpid()}, stop=self._ended.set, add_user=self.users.add)
        control = control_app(self.cloud, process)
        self._api = LoopbackServer(aws_app(self.cloud, control, self.activity, self.secret))
        self._hub = LoopbackServer(hub_app(folders))
        self.cloud.machines.doors = (self._api.port, self._hub.port)

    @property
    def ports(self) -> dict[str, int]:
        return {"api_port": self._api.port, "hub_port": self._hub.port}

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.on(self.secret, **self.ports)

    def publish(self) -> None:
        """Let the owner of the state folder, and nobody else, find and use this local cloud."""
        write_json(self.folders.secret, self.secret.value)
        write_json(self.folders.endpoint, self.ports)

    def end(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._ended.set()

    def serve(self) -> None:
        """Serve until `end` is called, or until nobody uses it any more."""
        while not self._ended.wait(TICK_SECONDS) and not self.unused():
            try:
                self.cloud.tick()
            except Exception:  # for the log; machines and requests have no part in it
                traceback.print_exc()

    def unused(self) -> bool:
        """Whether no machine runs, no user lives, and there was no request for a while."""
        if self.cloud.machines.running() or self.users.living():
            return False
        limit = KEPT_SECONDS if self.cloud.machines.off() or self.cloud.steward.groups.all() else QUIET_SECONDS
        return time.monotonic() - self.activity.last > limit

    def close(self) -> None:
        self.cloud.close()
        self._api.close()
        self._hub.close()


@contextmanager
def exclusive(folders: Folders) -> Iterator[None]:
    """Hold the state folder's lock while this is open. Raises LocalCloudError if another process serves the folder."""
    folders.make_state()
    with folders.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalCloudError(f"a local cloud serves {folders.state} already") from None
        yield


def main(folders: Folders) -> None:
    """Serve in the foreground."""
    try:
        with exclusive(folders):
            folders.forget_endpoint()  # of one that was killed: its ports may be anybody's by now
            daemon = Daemon(folders)
            daemon.cloud.sweep()
            signal.signal(signal.SIGTERM, daemon.end)
            signal.signal(signal.SIGINT, daemon.end)
            daemon.publish()
            print(f"local cloud: {daemon.endpoint.api_url}, state in {folders.state}", flush=True)
            try:
                daemon.serve()
            finally:
                folders.forget_endpoint()
                daemon.close()
    except LocalCloudError as error:
        sys.exit(f"error: {error}")


@contextmanager
def in_process(folders: Folders) -> Iterator[Endpoint]:
    """A local cloud inside this process that knows the images but boots nothing: for planning without root."""
    daemon = Daemon(folders)
    try:
        yield daemon.endpoint
    finally:
        daemon.close()
