"""One launcher at a time in one bucket and region: a lease, an object that is only ever written conditionally.

Its holder rewrites it every few seconds. A lease that was not written for LEASE_SECONDS, by S3's own clock, is free;
so is one whose holder is known to be dead. A launcher renews its lease before it makes or removes anything, so one
that was suspended, and has lost its lease meanwhile, does nothing.
"""

import getpass
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from baker.aws.client import read_only
from baker.aws.s3 import Bucket, StoredObject
from baker.context import BakeContext
from baker.errors import AwsError, BakeError, UsageError

LEASE_SECONDS = 60.0  # how long a launcher that died on another computer blocks the next one
RENEW_SECONDS = 15.0  # between renewals: three in a row may fail
TRIES = 5  # to take the lease, when others write it at the same time
PROC = Path("/proc")
STATE, START_TIME = 0, 19  # fields after the program's name in /proc/PID/stat: proc_pid_stat(5)
ENDED_STATES = "ZX"  # of processes


class HeldError(UsageError):
    """Another launcher holds the lease, for its work on `bake`."""

    def __init__(self, message: str, bake: str) -> None:
        super().__init__(message)
        self.bake = bake


class LostError(BakeError):
    """Another launcher has taken over the lease."""


@dataclass(frozen=True)
class LauncherProcess:
    """A process. `place` is the boot id plus the PID namespace ('' if unknown); `began` is the process's start time,
    because PIDs are reused.
    """

    place: str
    pid: int
    began: str

    @property
    def dead(self) -> bool:
        """Whether it has certainly ended. False also for a process that cannot be seen from here."""
        return bool(self.place) and self.place == _place() and _start_time(self.pid) != self.began


def process(pid: int) -> LauncherProcess:
    """A process of this computer."""
    return LauncherProcess(_place(), pid, _start_time(pid))


def user_at_host() -> str:
    """Who runs this, for a person."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True)
class LeaseHolder:
    """The content of a lease: who holds it."""

    bake: str
    who: str = field(default_factory=user_at_host)
    process: LauncherProcess = field(default_factory=lambda: process(os.getpid()))
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    released: bool = False


def present(context: BakeContext) -> LeaseHolder | None:
    """The launcher that holds the lease now."""
    return _holder(context.bucket.read(key_of(context)))


def key_of(context: BakeContext, name: str = "lease") -> str:
    """The bucket key of the lease; each region has its own, and each group that a new image is rolled out to."""
    return f"{context.config.s3.prefix}/leases/{context.config.aws.region}/{name}.json"


class Lease:
    """The lease of one launcher, for its work on one bake."""

    def __init__(self, context: BakeContext, bake: str, name: str = "lease") -> None:
        self._context = context
        self._bucket: Bucket = context.bucket
        self._key = key_of(context, name)
        self._me = LeaseHolder(bake)
        self._etag = ""  # of what was last written; empty: nothing was
        self._lost: LostError | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Become the holder; raises HeldError if another launcher is."""
        with self._lock:
            for _ in range(TRIES):
                stored = self._bucket.read(self._key)
                self._raise_if_held(stored)
                if self._write(stored.etag if stored else ""):
                    return
        raise AwsError(f"the lease {self._key} could not be taken: others write it all the time")

    def renew(self) -> None:
        """Stay the holder for another LEASE_SECONDS; raises LostError if another launcher has taken over."""
        with self._lock:
            self.raise_if_lost()
            if not self._write(self._etag):
                self._lost = self._lost_error()
                raise self._lost

    def raise_if_lost(self) -> None:
        """Raise LostError if that is known already; sends no request."""
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Let the next launcher take it at once."""
        self._over.set()
        with self._lock:
            if self._lost is None:
                self._me = replace(self._me, released=True)
                self._write(self._etag)

    def renew_in_background(self) -> None:
        """Renew it in a thread, until it is lost or released."""
        threading.Thread(target=self._renew_regularly, daemon=True, name="lease").start()

    def _renew_regularly(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            try:
                self.renew()
            except LostError:
                return
            except AwsError:
                continue  # the next renewal may succeed; whoever makes or removes something renews first

    def _write(self, etag: str) -> bool:
        """Replace the lease that has this ETag; returns whether nobody else has written it meanwhile."""
        self._etag = self._bucket.put_if(self._key, json.dumps(asdict(self._me), indent=1).encode(), etag)
        return bool(self._etag)

    def _raise_if_held(self, stored: StoredObject | None) -> None:
        holder = _holder(stored)
        if stored is None or holder is None:
            return
        until = self._context.now() + timedelta(seconds=LEASE_SECONDS - stored.age)
        raise HeldError(
            f"{holder.who} (process {holder.process.pid}) is at work on {holder.bake} and holds the lease until "
            f"{until:%H:%M:%S} UTC, which it renews while it lives: wait for it",
            holder.bake,
        )

    def _lost_error(self) -> LostError:
        """The error, which names the new holder if the bucket can be read."""
        holder = None
        with suppress(AwsError):
            stored = self._bucket.read(self._key)
            holder = _parse(stored.data) if stored else None
        now = f"{holder.who} works on {holder.bake} now" if holder else "another launcher holds the lease"
        return LostError(
            f"{now}: this one did not renew it for {LEASE_SECONDS:.0f} s, and leaves {self._me.bake} as it is; "
            "see `bake.py status`"
        )


@contextmanager
def held(context: BakeContext, bake: str, name: str = "lease") -> Iterator[BakeContext]:
    """Hold the lease inside; the context that is given renews it, and raises LostError when it sleeps without it."""
    lease = Lease(context, bake, name)
    with read_only():
        lease.take()
    lease.renew_in_background()

    def sleep(seconds: float) -> None:
        lease.raise_if_lost()
        context.sleep(seconds)

    try:
        yield replace(context, renew_lease=lease.renew, sleep=sleep)
    finally:
        with suppress(AwsError, LostError):
            lease.release()


def _holder(stored: StoredObject | None) -> LeaseHolder | None:
    """Who holds a lease; None if it is free: never taken, released, not renewed in time, or of a dead process."""
    holder = _parse(stored.data) if stored else None
    if stored is None or holder is None or holder.released or holder.process.dead:
        return None
    return holder if stored.age < LEASE_SECONDS else None


def _parse(data: bytes) -> LeaseHolder | None:
    try:
        document: Any = json.loads(data)
        if not isinstance(document, Mapping):
            return None
        return LeaseHolder(**{**document, "process": LauncherProcess(**document["process"])})
    except (ValueError, TypeError, KeyError):
        return None


def _place() -> str:
    try:
        return f"{(PROC / 'sys/kernel/random/boot_id').read_text().strip()} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """In the kernel's own unit; empty if there is no such process."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[STATE] in ENDED_STATES else fields[START_TIME]
