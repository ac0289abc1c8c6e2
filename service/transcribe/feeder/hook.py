"""While Auto Scaling ends this machine, its hook keeps it until what it holds is done, for as long as it says so."""

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from transcribe import logs
from transcribe.feeder.fleet import Fleet
from transcribe.fleet.bucket import code_of
from transcribe.fleet.layout import FINISH_HOOK

BEAT_SECONDS = 60.0  # between two signs of life; the hook waits many times as long for one
NOT_KEPT = "ValidationError"  # there is no such hook, or it has let the machine go
BEFORE = "Terminating"  # a balancer lets the machine's requests end first; the hook keeps it only after that


class FinishHook:
    """The hook of this machine's group."""

    def __init__(
        self, fleet: Fleet, scaling: Any, instance: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`scaling` is boto3's client of Auto Scaling; `instance` gives the machine's id, and may raise OSError.
        `clock` gives seconds and only goes forward."""
        self._fleet, self._scaling, self._instance, self._clock = fleet, scaling, instance, clock
        self._asked = float("-inf")
        self._kept = self._early = False

    def finishing(self) -> bool:
        """Whether the machine is kept, and holds something still or may not be let go yet; it takes nothing more.
        Raises ClientError."""
        now = self._clock()
        if self._early or now - self._asked >= BEAT_SECONDS:
            kept = self._tell("record_lifecycle_action_heartbeat")
            if kept and not self._kept:
                logs.event("finishing", jobs=len(self._fleet.store.tickets.all()))
            self._asked, self._kept = now, kept
        if not self._kept:
            return False
        self._fleet.pause.begin(10 * BEAT_SECONDS)
        return self._early or bool(self._fleet.store.tickets.all())

    def release(self) -> bool:
        """Lets Auto Scaling end the machine; False if it is too early for that. Raises ClientError."""
        self._tell("complete_lifecycle_action", LifecycleActionResult="CONTINUE")
        return not self._early

    def _tell(self, call: str, **more: str) -> bool:
        """Speaks to the hook, unless it is too early; False if it does not keep this machine, or the machine is in no
        group."""
        instance = self._instance()
        found = self._scaling.describe_auto_scaling_instances(InstanceIds=[instance])["AutoScalingInstances"]
        self._early = bool(found) and found[0]["LifecycleState"] == BEFORE
        if self._early or not found:
            return self._early
        asked = {"AutoScalingGroupName": found[0]["AutoScalingGroupName"], "InstanceId": instance, **more}
        try:
            getattr(self._scaling, call)(LifecycleHookName=FINISH_HOOK, **asked)
        except ClientError as error:
            if code_of(error) != NOT_KEPT:
                raise
            return False
        return True
