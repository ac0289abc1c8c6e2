"""moto's calls of Auto Scaling that change what a group has lead to `Groups`, and the two that moto lacks are added.

moto's classes are changed, since it makes the groups; a region without `Groups` behaves as moto's.
"""

from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult

from localcloud.aws.steward.groups import Groups

ATTRIBUTE = "groups_of_the_steward"
GROUP_SET = FakeAutoScalingGroup.set_desired_capacity
SET = AutoScalingBackend.set_desired_capacity
DELETE = AutoScalingBackend.delete_auto_scaling_group
TERMINATE = AutoScalingBackend.terminate_instance
ENDED = AutoScalingBackend.notify_terminate_instances
ACTIVITIES = AutoScalingResponse.describe_scaling_activities


def lead_here(groups: Groups) -> None:
    """Let the calls for this region's groups act."""
    setattr(groups.backend, ATTRIBUTE, groups)
    changed: dict[type, dict[str, Any]] = {
        FakeAutoScalingGroup: {"set_desired_capacity": _want},
        AutoScalingBackend: {
            "set_desired_capacity": _set_desired_capacity,
            "delete_auto_scaling_group": _delete,
            "terminate_instance": _terminate,
            "notify_terminate_instances": _ended,
        },
        AutoScalingResponse: {
            "describe_scaling_activities": _activities,
            "complete_lifecycle_action": _complete,
            "record_lifecycle_action_heartbeat": _beat,
        },
    }
    for kind, methods in changed.items():
        for name, method in methods.items():
            setattr(kind, name, method)


def _of(backend: AutoScalingBackend) -> Groups | None:
    return getattr(backend, ATTRIBUTE, None)


def _want(group: FakeAutoScalingGroup, number: int | None) -> None:
    groups = _of(group.autoscaling_backend)
    groups.want(group, number) if groups else GROUP_SET(group, number)


def _set_desired_capacity(backend: AutoScalingBackend, name: str, number: int | None) -> None:
    group: Any = backend.autoscaling_groups.get(name)
    if _of(backend) and group is None:
        raise ValidationError("AutoScalingGroup name not found - null")
    if _of(backend) and number is not None and not (group.min_size or 0) <= number <= group.max_size:
        side = f"above max value {group.max_size}" if number > group.max_size else f"below min value {group.min_size}"
        raise ValidationError(f"New SetDesiredCapacity value {number} is {side} for the AutoScalingGroup.")
    SET(backend, name, number)


def _delete(backend: AutoScalingBackend, name: str) -> None:
    groups, group = _of(backend), backend.autoscaling_groups.get(name)
    if groups and group:
        groups.close(group)
    DELETE(backend, name)


def _terminate(backend: AutoScalingBackend, instance_id: str, decrement: bool) -> Any:
    groups = _of(backend)
    return groups.terminate(instance_id, decrement=decrement) if groups else TERMINATE(backend, instance_id, decrement)


def _ended(backend: AutoScalingBackend, instance_ids: list[str]) -> None:
    groups = _of(backend)
    groups.ended_elsewhere(instance_ids) if groups else ENDED(backend, instance_ids)


def _activities(response: AutoScalingResponse) -> ActionResult:
    groups = _of(response.autoscaling_backend)
    if not groups:
        return ACTIVITIES(response)
    return ActionResult({"Activities": groups.activities(response._get_param("AutoScalingGroupName", ""))})


def _complete(response: AutoScalingResponse) -> ActionResult:
    groups, wait = _waited(response)
    groups.complete(wait, response._get_param("LifecycleActionResult"))
    return EmptyResult()


def _beat(response: AutoScalingResponse) -> ActionResult:
    groups, wait = _waited(response)
    groups.beat(wait)
    return EmptyResult()


def _waited(response: AutoScalingResponse) -> tuple[Groups, Any]:
    groups = _of(response.autoscaling_backend)
    if groups is None:
        raise ValidationError("no Auto Scaling acts in this region")
    names = ("AutoScalingGroupName", "LifecycleHookName", "InstanceId", "LifecycleActionToken")
    return groups, groups.wait(*(response._get_param(name, "") for name in names))
