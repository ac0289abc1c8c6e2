"""Auto Scaling groups as AWS keeps them: as many machines as are wanted, none protected ended by scale-in."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import autoscaling_backends
from moto.core.exceptions import ServiceException
from moto.ec2.models import ec2_backends
from moto.moto_api._internal import mock_random

from localcloud.aws.moto_images import ACCOUNT
from localcloud.aws.query_protocol import Ec2Error
from localcloud.aws.steward.hooks import LAUNCHING, TERMINATING, Hooks, Wait

IN_SERVICE, STANDBY = "InService", "Standby"
BEGINS, ENDS = "Pending:Wait", "Terminating:Wait"
COUNTED = (IN_SERVICE, BEGINS)  # towards the capacity that is wanted
KEPT_ACTIVITIES = 1000
Activity = dict[str, Any]


class Groups:
    """One region's groups. moto's calls come here once `calls.lead_here` has said so."""

    def __init__(self, region: str, clock: Callable[[], float]) -> None:
        self.backend: Any = autoscaling_backends[ACCOUNT][region]
        self._ec2: Any = ec2_backends[ACCOUNT][region]
        self._clock = clock
        self._hooks = Hooks(self.backend)
        self._began: dict[str, float] = {}  # when each machine came into service
        self._activities: dict[str, list[Activity]] = {}  # by the group's name, the newest first
        self._lock = threading.RLock()

    def all(self) -> list[Any]:
        return list(self.backend.autoscaling_groups.values())

    def members(self) -> Iterator[tuple[Any, Any]]:
        """Each group with each of its instances' records."""
        for group in self.all():
            for member in list(group.instance_states):
                yield group, member

    def warming(self, group: Any, seconds: float) -> int:
        """How many of the group's machines have not served for so long yet."""
        now = self._clock()
        began = [self._began.get(member.instance_id) for member in counted(group)]
        return sum(1 for moment in began if moment is None or now - moment < seconds)

    def activities(self, name: str) -> list[Activity]:
        """What was started and ended, the newest first."""
        kept = [self._activities.get(name, [])] if name else list(self._activities.values())
        return sorted(chain.from_iterable(kept), key=lambda each: each["StartTime"], reverse=True)

    # --- how many

    def want(self, group: Any, number: int | None, cause: str = "a user request") -> None:
        """Let a group have so many machines, within its bounds."""
        with self._lock:
            wanted = group.min_size if number is None else number
            group.desired_capacity = max(group.min_size or 0, min(wanted, group.max_size))
            self.settle(group, cause)

    def settle(self, group: Any, cause: str = "the capacity that is wanted") -> None:
        """Start and end machines until the group has as many as it wants."""
        with self._lock:
            missing = group.desired_capacity - len(counted(group))
            if missing > 0:
                self._launch(group, missing, cause)
            for member in removable(group)[: max(0, -missing)]:
                self.leave(group, member, cause)
            if missing and group.name in self.backend.autoscaling_groups:
                self.backend.update_attached_elbs(group.name)
                self.backend.update_attached_target_groups(group.name)

    def _launch(self, group: Any, count: int, cause: str) -> None:
        there = list(group.instance_states)
        try:
            group.replace_autoscaling_group_instances(count, group.get_propagated_tags())
        except (Ec2Error, ServiceException) as error:
            self._note(group, "Launching a new EC2 instance", cause, failed=str(error))
            return
        for member in [member for member in group.instance_states if member not in there]:
            self._note(group, f"Launching a new EC2 instance: {member.instance_id}", cause)
            if self._hooks.begin(group.name, member.instance_id, LAUNCHING, self._clock()):
                member.lifecycle_state = BEGINS
            else:
                self._began[member.instance_id] = self._clock()

    # --- the end of a machine

    def terminate(self, instance_id: str, *, decrement: bool) -> Activity:
        """End a machine of a group, also a protected one, and let the group want one less. Raises ValidationError."""
        with self._lock:
            group, member = self._find(instance_id)
            if decrement:
                if group.desired_capacity <= (group.min_size or 0):
                    raise ValidationError(
                        f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without "
                        "replacement will violate group's min size constraint."
                    )
                group.desired_capacity -= 1
            activity = self.leave(group, member, "a user request")
            self.settle(group, "an instance that was taken out of service")
            return activity

    def leave(self, group: Any, member: Any, cause: str) -> Activity:
        """Take a machine out of service: it waits for the group's hooks, or ends at once."""
        activity = self._note(group, f"Terminating EC2 instance: {member.instance_id}", cause)
        if member.lifecycle_state == ENDS:
            return activity
        if self._hooks.begin(group.name, member.instance_id, TERMINATING, self._clock()):
            member.lifecycle_state = ENDS
        else:
            self._end(group, member)
        return activity

    def _end(self, group: Any, member: Any) -> None:
        group.instance_states = [other for other in group.instance_states if other is not member]
        self._hooks.forget(member.instance_id)
        self._began.pop(member.instance_id, None)
        if str(member.instance.state) != "terminated":
            self._ec2.terminate_instances([member.instance_id])

    def ended_elsewhere(self, instance_ids: list[str]) -> None:
        """Replace instances that EC2 was asked to end."""
        with self._lock:
            for group, member in self.members():
                if member.instance_id in instance_ids:
                    self._end(group, member)
                    self.settle(group, "an EC2 health check")

    def close(self, group: Any) -> None:
        """End all machines of a group that is removed, without a wait."""
        with self._lock:
            group.min_size = group.desired_capacity = 0
            for member in list(group.instance_states):
                self._end(group, member)

    # --- hooks and health

    def complete(self, wait: Wait, result: str) -> None:
        """Let an instance go on after a hook."""
        with self._lock:
            group, member = self._find(wait.instance)
            if not self._hooks.complete(wait, result):
                return
            if member.lifecycle_state == BEGINS and not self._hooks.abandoned(wait.instance):
                member.lifecycle_state = IN_SERVICE
                self._began[wait.instance] = self._clock()
                return
            self._end(group, member)
            self.settle(group, "a lifecycle hook")

    def beat(self, wait: Wait) -> None:
        self._hooks.beat(wait, self._clock())

    def wait(self, group: str, hook: str, instance: str, token: str) -> Wait:
        """An action that is waited for. Raises ValidationError."""
        found = self._hooks.find(group, hook, instance, token)
        if found is None:
            raise ValidationError(f"No active Lifecycle Action found with instance ID {instance or token}")
        return found

    def tick(self) -> None:
        """End waits whose time is over, and replace what is broken, protected or not."""
        with self._lock:
            for wait in self._hooks.expired(self._clock()):
                with suppress(ValidationError):  # ended together with another
                    self.complete(
                        self.wait(wait.hook.auto_scaling_group_name, wait.hook.name, "", wait.token),
                        wait.hook.default_result,
                    )
            for group, member in self.members():
                if str(member.instance.state) not in ("pending", "running"):
                    self._end(group, member)
                elif member.health_status == "Unhealthy":
                    self.leave(group, member, "a health check")
            for group in self.all():
                self.settle(group, "an EC2 health check")

    def _find(self, instance_id: str) -> tuple[Any, Any]:
        for group, member in self.members():
            if member.instance_id == instance_id:
                return group, member
        raise ValidationError(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")

    def _note(self, group: Any, what: str, cause: str, *, failed: str = "") -> Activity:
        at = datetime.fromtimestamp(self._clock(), UTC).replace(tzinfo=None)
        activity: Activity = {
            "ActivityId": str(mock_random.uuid4()),
            "AutoScalingGroupName": group.name,
            "Description": what,
            "Cause": f"in response to {cause}",
            "StartTime": at,
            "EndTime": at,
            "StatusCode": "Failed" if failed else "Successful",
            "Progress": 100,
        }
        if failed:
            activity["StatusMessage"] = failed
        kept = self._activities.setdefault(group.name, [])
        if failed and kept and kept[0].get("StatusMessage") == failed:
            kept.pop(0)  # tried again every second
        kept.insert(0, activity)
        del kept[KEPT_ACTIVITIES:]
        return activity


def counted(group: Any) -> list[Any]:
    """The instances that count towards the group's capacity."""
    return [member for member in group.instance_states if member.lifecycle_state in COUNTED]


def removable(group: Any) -> list[Any]:
    """Those that scale-in may end, in the order in which it does: the oldest first, if the group wants nothing else."""
    free = [member for member in counted(group) if not member.protected_from_scale_in]
    return free[::-1] if "NewestInstance" in group.termination_policies else free


def target_state(member: Any) -> str:
    """What the instance's metadata tell as autoscaling/target-lifecycle-state."""
    return {BEGINS: IN_SERVICE, ENDS: "Terminated"}.get(member.lifecycle_state, str(member.lifecycle_state))
