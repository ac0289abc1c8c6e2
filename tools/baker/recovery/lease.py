"""One launcher at a time in one bucket and region: a lease, an object that is only ever written on a condition.

Who holds it writes it again every few seconds. One that was not written for LEASE_SECONDS, by S3's own clock, is
anybody's; so is one whose holder is known to be dead. Before a launcher makes or removes something it writes the lease
once more, so that one that slept meanwhile, and lost it, does nothing.
"""

import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any

from baker.aws.client import only_looking
from baker.aws.s3 import Bucket, Stored
from baker.context import Context
from baker.errors import AwsError, BakeError, UsageError
from baker.recovery import holders
from baker.recovery.holders import Process

LEASE_SECONDS = 60.0  # what a launcher that died on another computer makes its successor wait
BEAT_SECONDS = 15.0  # between two writings: three may fail
TRIES = 5  # to take it, when another one wrote it first


class HeldError(UsageError):
    """Another launcher is at work; `bake` is what on."""

    def __init__(self, message: str, bake: str) -> None:
        super().__init__(message)
        self.bake = bake


class LostError(BakeError):
    """Another launcher has taken the lease over."""


@dataclass(frozen=True)
class Holder:
    """What a lease says of who holds it."""

    bake: str
    who: str = field(default_factory=holders.somebody)
    process: Process = field(default_factory=lambda: holders.of(os.getpid()))
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    released: bool = False


def held_by(stored: Stored | None) -> Holder | None:
    """Who holds a lease; None when it is free: never taken, given back, not renewed in time, or of a dead process."""
    holder = _parse(stored.data) if stored else None
    if stored is None or holder is None or holder.released or holder.process.dead:
        return None
    return holder if stored.age < LEASE_SECONDS else None


def present(context: Context) -> Holder | None:
    """The launcher that is at work now."""
    return held_by(context.bucket.look(key_of(context)))


def key_of(context: Context) -> str:
    """Where in the bucket the lease is: bakes of other regions are none of its business."""
    return f"{context.config.s3.prefix}/leases/{context.config.aws.region}/lease.json"


class Lease:
    """The lease of one launcher, for its work on one bake."""

    def __init__(self, context: Context, bake: str) -> None:
        self._context = context
        self._bucket: Bucket = context.bucket
        self._key = key_of(context)
        self._me = Holder(bake)
        self._etag = ""  # of what was last written; empty: nothing is there
        self._lost: LostError | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Become the holder; raises HeldError when another launcher is."""
        with self._lock:
            for _ in range(TRIES):
                stored = self._bucket.look(self._key)
                self._refuse_beside(stored)
                if self._write(stored.etag if stored else ""):
                    return
        raise AwsError(f"the lease {self._key} could not be taken: others write it all the time")

    def hold(self) -> None:
        """Return as the holder, for LEASE_SECONDS from now; raises LostError when another launcher has taken over."""
        with self._lock:
            self.mind()
            if not self._write(self._etag):
                self._lost = self._explained()
                raise self._lost

    def mind(self) -> None:
        """Raise LostError if that is known already; asks nothing."""
        if self._lost is not None:
            raise self._lost

    def give_back(self) -> None:
        """Let the next one have it at once."""
        self._over.set()
        with self._lock:
            if self._lost is None:
                self._me = replace(self._me, released=True)
                self._write(self._etag)

    def keep(self) -> None:
        """Hold it from a thread of its own, until it is lost or given back."""
        threading.Thread(target=self._beat, daemon=True, name="lease").start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self.hold()
            except LostError:
                return
            except AwsError:
                continue  # another beat may come through; whoever makes something holds it first

    def _write(self, etag: str) -> bool:
        """Write the lease over what has this tag; returns whether nobody else has meanwhile."""
        self._etag = self._bucket.put_if(self._key, json.dumps(asdict(self._me), indent=1).encode(), etag)
        return bool(self._etag)

    def _refuse_beside(self, stored: Stored | None) -> None:
        holder = held_by(stored)
        if stored is None or holder is None:
            return
        until = self._context.now() + timedelta(seconds=LEASE_SECONDS - stored.age)
        raise HeldError(
            f"{holder.who} (process {holder.process.pid}) is at work on {holder.bake} and holds the lease until "
            f"{until:%H:%M:%S} UTC, which it renews while it lives: wait for it",
            holder.bake,
        )

    def _explained(self) -> LostError:
        """Who has it now, as far as that can be seen."""
        holder = None
        with suppress(AwsError):
            stored = self._bucket.look(self._key)
            holder = _parse(stored.data) if stored else None
        now = f"{holder.who} works on {holder.bake} now" if holder else "the lease is another's"
        return LostError(
            f"{now}: this launcher was not heard of for {LEASE_SECONDS:.0f} s, and leaves {self._me.bake} as it is; "
            "see `bake.py status`"
        )


@contextmanager
def held(context: Context, bake: str) -> Iterator[Context]:
    """Inside, this is the only launcher at work; the context that is given asks for that where it matters."""
    lease = Lease(context, bake)
    with only_looking():
        lease.take()
    lease.keep()

    def sleep(seconds: float) -> None:
        lease.mind()
        context.sleep(seconds)

    try:
        yield replace(context, hold=lease.hold, sleep=sleep)
    finally:
        with suppress(AwsError, LostError):
            lease.give_back()


def _parse(data: bytes) -> Holder | None:
    try:
        told: Any = json.loads(data)
        return Holder(**{**told, "process": Process(**told["process"])}) if isinstance(told, Mapping) else None
    except (ValueError, TypeError, KeyError):
        return None
