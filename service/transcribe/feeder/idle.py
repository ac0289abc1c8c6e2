"""A machine of an Auto Scaling group ends itself when it has had no work for long; its group wants one less then.

So no work is on a machine that ends. Were the group to choose, there could be.
"""

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from transcribe import logs
from transcribe.feeder.fleet import Fleet, trouble
from transcribe.fleet.bucket import code_of
from transcribe.jobs import activity

FIRST_SECONDS = 1200.0  # for a new machine's worker: as long as its group gives it before it looks at its health
FILE_SECONDS = 3600.0  # a file of the uploads that is older is nobody's work: a submission takes a third of it at most
RETRY_SECONDS = 60.0  # until AWS is asked again after an error
REFUSED = "ValidationError"  # as by a group that has no more machines than it must have


class Idle:
    """One thread calls `once` again and again."""

    def __init__(
        self,
        fleet: Fleet,
        scaling: Any,
        member: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`scaling` is boto3's client of Auto Scaling; `member` gives the machine's id while it is in a group, and may
        raise OSError. `clock` gives seconds and only goes forward."""
        self._fleet, self._scaling, self._member, self._clock = fleet, scaling, member, clock
        self._seconds = fleet.config.fleet.idle_minutes * 60.0
        self._since = clock()
        self._was_ready = False
        self._done: object = None

    def once(self) -> bool:
        """Looks for work; True once the machine is to end."""
        now, done = self._clock(), self._work_done()
        if done != self._done or self.busy():
            self._done, self._since = done, now
            return False
        if now - self._since < (self._seconds if self._was_ready else max(self._seconds, FIRST_SECONDS)):
            return False
        self._since = now - self._seconds + RETRY_SECONDS
        with trouble("end_itself"):
            return self._end(now)
        return False

    def busy(self) -> bool:
        """Whether anything is held, worked on, waited for or on its way in at this moment."""
        store, config = self._fleet.store, self._fleet.config
        return bool(
            store.tickets.all()
            or store.queue_stats().jobs
            or store.pending_webhooks()
            or activity.requests(config.results)
            or activity.uploads(config.temp, FILE_SECONDS)
        )

    def _work_done(self) -> object:
        """Something that changes with every recording, since one may come and go between two looks; and when the worker
        becomes ready."""
        worker = self._fleet.store.worker() or {}
        self._was_ready = self._was_ready or worker.get("state") == "ready"
        return (self._was_ready, worker.get("metrics", {}).get("chunks_total"))

    def _end(self, now: float) -> bool:
        instance = self._member()
        if not instance:
            self._since = now
            return False
        with self._fleet.guard:  # nothing is taken meanwhile
            if self.busy():
                return False
            try:
                self._scaling.terminate_instance_in_auto_scaling_group(
                    InstanceId=instance, ShouldDecrementDesiredCapacity=True
                )
            except ClientError as error:
                if code_of(error) != REFUSED:
                    raise
                self._since = now
                logs.event("idle_but_needed", instance=instance, reason=str(error))
                return False
            self._fleet.leaving.set()
        logs.event("idle", instance=instance, minutes=self._fleet.config.fleet.idle_minutes)
        return True
