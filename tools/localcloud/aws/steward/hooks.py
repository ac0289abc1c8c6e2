"""Lifecycle hooks: a machine that begins or ends waits until it is told to go on, or until its time is over."""

from dataclasses import dataclass
from typing import Any

from moto.moto_api._internal import mock_random

LAUNCHING, TERMINATING = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"
CONTINUE, ABANDON = "CONTINUE", "ABANDON"
LONGEST = 48 * 3600.0  # with all heartbeats; a hundred timeouts if that is less


@dataclass
class Wait:
    """An instance that waits for one hook."""

    instance: str
    hook: Any
    token: str
    until: float  # by the steward's clock, as `last`
    last: float


class Hooks:
    """The waits of one region's instances."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._waits: list[Wait] = []
        self._abandoned: set[str] = set()

    def begin(self, group: str, instance: str, transition: str, now: float) -> bool:
        """Whether the instance is to wait for any hook of this transition."""
        self.forget(instance)
        for hook in self._backend.describe_lifecycle_hooks(group):
            if hook.lifecycle_transition == transition:
                seconds = float(hook.heartbeat_timeout)
                token, last = str(mock_random.uuid4()), now + min(LONGEST, 100 * seconds)
                self._waits.append(Wait(instance, hook, token, now + seconds, last))
        return self._waiting(instance)

    def find(self, group: str, hook: str, instance: str, token: str) -> Wait | None:
        """The wait for this hook, by the instance's id or by the action's token."""
        for wait in self._waits:
            of_hook = (wait.hook.auto_scaling_group_name, wait.hook.name) == (group, hook)
            if of_hook and (wait.instance == instance or wait.token == token):
                return wait
        return None

    def beat(self, wait: Wait, now: float) -> None:
        """Let it wait for one more timeout, as far as AWS lets it."""
        wait.until = min(now + wait.hook.heartbeat_timeout, wait.last)

    def complete(self, wait: Wait, result: str) -> bool:
        """End one wait; True if the instance waits for nothing more. ABANDON ends the others as well."""
        self._waits.remove(wait)
        if result == ABANDON:
            self._waits = [other for other in self._waits if other.instance != wait.instance]
            self._abandoned.add(wait.instance)
        return not self._waiting(wait.instance)

    def expired(self, now: float) -> list[Wait]:
        return [wait for wait in self._waits if wait.until <= now]

    def abandoned(self, instance: str) -> bool:
        return instance in self._abandoned

    def forget(self, instance: str) -> None:
        self._waits = [wait for wait in self._waits if wait.instance != instance]
        self._abandoned.discard(instance)

    def _waiting(self, instance: str) -> bool:
        return any(wait.instance == instance for wait in self._waits)
