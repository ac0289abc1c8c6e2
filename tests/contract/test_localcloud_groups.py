"""Auto Scaling groups of the local cloud act by themselves: capacity, protection, hooks, health and spot notices."""

import json
from typing import Any

import pytest
from localcloud.machines import base_image
from support.running_cloud import RunningCloud, refused
from support.waiting import until

HOOK = {"LifecycleHookName": "end", "AutoScalingGroupName": "g", "HeartbeatTimeout": 60}
ENDING = "autoscaling:EC2_INSTANCE_TERMINATING"


@pytest.fixture(name="groups")
def scaling(running: RunningCloud) -> Any:
    """Auto Scaling's client; there is a template `one`."""
    data = {"ImageId": base_image.source_ami(), "InstanceType": "g4dn.xlarge"}
    running.ec2.create_launch_template(LaunchTemplateName="one", LaunchTemplateData=data)
    return running.client("autoscaling")


def make(groups: Any, wanted: int, **more: Any) -> None:
    """A group `g` of 1 to 3 machines, which wants so many."""
    limits = {"MinSize": 1, "MaxSize": 3, "DesiredCapacity": wanted}
    where = {"AvailabilityZones": ["eu-north-1a"], "LaunchTemplate": {"LaunchTemplateName": "one"}}
    groups.create_auto_scaling_group(AutoScalingGroupName="g", **{**limits, **where, **more})


def members(groups: Any) -> dict[str, str]:
    """The lifecycle state of each machine."""
    [group] = groups.describe_auto_scaling_groups(AutoScalingGroupNames=["g"])["AutoScalingGroups"]
    return {each["InstanceId"]: each["LifecycleState"] for each in group["Instances"]}


def want(groups: Any, number: int) -> None:
    groups.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=number)


def test_scale_in_ends_no_protected_machine(running: RunningCloud, groups: Any) -> None:
    make(groups, 3, NewInstancesProtectedFromScaleIn=True)
    first, *others = members(groups)
    want(groups, 1)
    assert list(members(groups)) == [first, *others]
    groups.set_instance_protection(AutoScalingGroupName="g", InstanceIds=[others[0]], ProtectedFromScaleIn=False)
    running.later()
    assert sorted(running.cloud.machines.running()) == sorted(members(groups)) == sorted([first, others[1]])


def test_a_group_keeps_its_bounds(groups: Any, running: RunningCloud) -> None:
    make(groups, 2)
    assert refused(want, groups=groups, number=4) == "ValidationError"
    end = groups.terminate_instance_in_auto_scaling_group
    for instance in list(members(groups))[:1]:
        end(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    [last] = members(groups)
    assert refused(end, InstanceId=last, ShouldDecrementDesiredCapacity=True) == "ValidationError"
    end(InstanceId=last, ShouldDecrementDesiredCapacity=False)
    [other] = members(groups)
    assert running.cloud.machines.running() == [other] != [last]
    assert refused(end, InstanceId=last, ShouldDecrementDesiredCapacity=False) == "ValidationError"


def test_a_removed_group_ends_its_protected_machines(running: RunningCloud, groups: Any) -> None:
    make(groups, 2, NewInstancesProtectedFromScaleIn=True)
    groups.delete_auto_scaling_group(AutoScalingGroupName="g", ForceDelete=True)
    assert running.cloud.machines.running() == []


@pytest.mark.parametrize("way", ["completed", "too late"])
def test_a_machine_waits_for_its_hook_before_it_ends(running: RunningCloud, groups: Any, way: str) -> None:
    make(groups, 2)
    groups.put_lifecycle_hook(**HOOK, LifecycleTransition=ENDING)
    want(groups, 1)
    [leaving] = [instance for instance, state in members(groups).items() if state == "Terminating:Wait"]
    action = {"LifecycleHookName": "end", "AutoScalingGroupName": "g", "InstanceId": leaving}
    running.later(50)
    groups.record_lifecycle_action_heartbeat(**action)
    running.later(50)
    assert leaving in running.cloud.machines.running()
    if way == "completed":
        groups.complete_lifecycle_action(**action, LifecycleActionResult="CONTINUE")
    else:
        running.later(11)
    assert leaving not in running.cloud.machines.running()
    assert list(members(groups).values()) == ["InService"]
    assert refused(groups.record_lifecycle_action_heartbeat, **action) == "ValidationError"


def test_a_machine_serves_once_its_hook_lets_it(running: RunningCloud, groups: Any) -> None:
    make(groups, 1)
    groups.put_lifecycle_hook(**HOOK, LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING")
    want(groups, 2)
    [new] = [instance for instance, state in members(groups).items() if state == "Pending:Wait"]
    action = {"LifecycleHookName": "end", "AutoScalingGroupName": "g", "InstanceId": new}
    groups.complete_lifecycle_action(**action, LifecycleActionResult="CONTINUE")
    assert members(groups)[new] == "InService"
    want(groups, 3)
    [other] = [instance for instance, state in members(groups).items() if state == "Pending:Wait"]
    running.later(61)  # its default result is ABANDON
    assert other not in members(groups)
    assert sorted(members(groups).values()) == ["InService", "InService", "Pending:Wait"]


def test_what_is_broken_is_replaced_also_if_it_is_protected(running: RunningCloud, groups: Any) -> None:
    make(groups, 2, NewInstancesProtectedFromScaleIn=True)
    sick, off = members(groups)
    groups.set_instance_health(InstanceId=sick, HealthStatus="Unhealthy")
    running.cloud.machines.get(off).send("poweroff")

    def replaced() -> bool:
        running.later()
        return not {sick, off} & set(members(groups))

    until(replaced)
    assert len(members(groups)) == 2
    assert sorted(running.cloud.machines.running()) == sorted(members(groups))
    told = groups.describe_scaling_activities(AutoScalingGroupName="g")["Activities"]
    assert [each["Description"].split(":")[0] for each in told].count("Launching a new EC2 instance") == 4


def test_a_group_says_why_it_cannot_start_a_machine(running: RunningCloud, groups: Any) -> None:
    data = {"ImageId": "resolve:ssm:/nothing", "InstanceType": "g4dn.xlarge"}
    running.ec2.create_launch_template(LaunchTemplateName="bad", LaunchTemplateData=data)
    make(groups, 1, LaunchTemplate={"LaunchTemplateName": "bad"})
    running.later()
    [activity] = groups.describe_scaling_activities(AutoScalingGroupName="g")["Activities"]
    assert (activity["StatusCode"], activity["StatusMessage"]) == (
        "Failed",
        "The SSM parameter /nothing does not exist",
    )


def test_a_target_group_that_is_gone_holds_nothing_up(running: RunningCloud, groups: Any) -> None:
    elbv2, [vpc, *_] = running.client("elbv2"), running.ec2.describe_vpcs()["Vpcs"]
    made = elbv2.create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=vpc["VpcId"])
    arn = made["TargetGroups"][0]["TargetGroupArn"]
    make(groups, 1, TargetGroupARNs=[arn])
    elbv2.delete_target_group(TargetGroupArn=arn)
    running.later()
    assert list(members(groups).values()) == ["InService"]


def test_a_spot_machine_is_told_two_minutes_before_its_end(running: RunningCloud, groups: Any) -> None:
    make(groups, 1)
    [spot] = members(groups)
    assert running.ask("POST", f"machines/{spot}/spot-notice").ok
    running.later(110)
    told = running.cloud.steward.metadata(spot)
    assert json.loads(told["spot/instance-action"])["action"] == "terminate"
    assert told["autoscaling/target-lifecycle-state"] == "InService"
    assert running.cloud.machines.running() == [spot]
    running.later(10)
    assert running.cloud.steward.metadata(spot) == {}
    [other] = members(groups)
    assert running.cloud.machines.running() == [other] != [spot]
    assert running.ask("POST", "machines/i-none/spot-notice").status_code == 400
