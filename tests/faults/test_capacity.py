"""AWS has no room, no quota, or takes a machine away: where the launcher goes next, and that it goes there once."""

import os
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from baker.config import load
from baker.context import open_context
from baker.deploy import serve
from baker.display.progress import Display
from baker.errors import BakeError
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, FAULTS, KILLED, Fault
from localcloud.aws.query_protocol import Form
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult
from moto.ec2.models.instances import StateReason
from rich.console import Console
from support.fake_machine import FakeMachine, Script, succeed

ZONES = ("a", "b", "c")
ORDERS = [(*order[:count],) for count in range(len(ZONES) + 1) for order in permutations(ZONES, count)]
NO_ROOM = (
    "We currently do not have sufficient g4dn.xlarge capacity in the Availability Zone you requested ({here}). You can "
    "currently get g4dn.xlarge capacity by not specifying an Availability Zone in your request or choosing {there}."
)
TWO_MARKETS = '[instance]\ntypes = ["g4dn.xlarge", "g5.xlarge"]\nmarkets = ["spot", "on-demand"]\n'


class Desk:
    """RunInstances as a desk: whom it gives a machine, and what it was asked for."""

    def __init__(self, lab: Lab, says: Callable[[str, str, str], tuple[str, str] | None]) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self._says = says
        lab.cloud.refuses = self

    def __call__(self, form: Form) -> tuple[str, str] | None:
        [subnet] = account.backend().describe_subnets([form["SubnetId"]])
        market = form.get("InstanceMarketOptions.MarketType", "on-demand")
        asked = (form.get("InstanceType", "of the template"), market, subnet.availability_zone[-1])
        self.asked.append(asked)
        self.tokens.append(form["ClientToken"])
        return self._says(*asked)


@pytest.mark.parametrize("hinted", ORDERS if os.environ.get("FAULTS") == "all" else ORDERS[::5], ids="-".join)
@pytest.mark.parametrize("room", ZONES)
def test_zones_are_tried_in_the_order_that_the_refusal_names(
    lab: Lab, record_property: Any, room: str, hinted: tuple[str, ...]
) -> None:
    record_property("fault", ("capacity", "no room, each hint"))
    there = ", ".join(f"eu-north-1{zone}" for zone in hinted)
    full = NO_ROOM.format(here="eu-north-1a", there=there) if hinted else "Insufficient capacity."
    desk = Desk(lab, lambda kind, market, zone: None if zone == room else ("InsufficientInstanceCapacity", full))
    ended = lab.launch("bake")
    assert ended.code == 0, ended.err
    first = [zone for _, _, zone in desk.asked[: len(desk.asked) // 2]]
    others = [zone for zone in hinted if zone != "a"] + [zone for zone in "bc" if zone not in hinted]
    assert first == ["a", *others][: ["a", *others].index(room) + 1]
    assert len(set(desk.tokens)) == len(desk.tokens), "a new attempt takes a new token"
    lab.assert_left(images=1)


@pytest.mark.parametrize("code", ["InsufficientFreeAddressesInSubnet", "InsufficientVolumeCapacity", "Unsupported"])
def test_a_place_that_lacks_something_else_is_passed_over(lab: Lab, record_property: Any, code: str) -> None:
    record_property("fault", ("capacity", code))
    desk = Desk(lab, lambda kind, market, zone: (code, "There is not enough.") if zone == "a" else None)
    ended = lab.launch("bake")
    assert ended.code == 0, ended.err
    assert [zone for _, _, zone in desk.asked] == ["a", "b", "a", "b"]
    lab.assert_left(images=1)


def test_a_machine_for_which_there_was_no_room_after_all_is_replaced_in_another_zone(
    lab: Lab, record_property: Any
) -> None:
    """RunInstances has succeeded, and EC2 ends the instance at once."""
    record_property("fault", ("capacity", "no room after all"))

    def no_room(machine: FakeMachine) -> None:
        instance = account.backend().get_instance_by_id(machine.id)
        instance.terminate()
        code = "Server.InsufficientInstanceCapacity"
        instance.state_reason = StateReason(f"{code}: Insufficient capacity to launch the instance", code)

    desk = Desk(lab, lambda kind, market, zone: None)
    lab.machines.scripts["bake"] = no_room
    assert lab.launch("bake").code == 1
    assert [zone for _, _, zone in desk.asked] == ["a", "b", "c"]
    lab.assert_left(images=0)


def test_no_room_anywhere_is_one_line_and_leaves_nothing(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("capacity", "no room anywhere"))
    lab.configure(TWO_MARKETS)
    desk = Desk(lab, lambda kind, market, zone: ("InsufficientInstanceCapacity", "Insufficient capacity."))
    ended = lab.launch("bake")
    assert ended.code == 1
    [line] = ended.err.strip().splitlines()
    assert "AWS has no machine for us now (g4dn.xlarge in eu-north-1a (spot): InsufficientInstanceCapacity" in line
    assert len(set(desk.asked)) == len(desk.asked) == 10  # g5 is not to be had in zone a
    lab.assert_left(images=0)


def test_a_quota_that_is_used_up_is_asked_about_once(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("capacity", "no quota"))
    lab.configure(TWO_MARKETS)
    full = ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    desk = Desk(lab, lambda kind, market, zone: full if market == "spot" else None)
    assert lab.launch("bake").code == 0
    assert desk.asked[:2] == [("g4dn.xlarge", "spot", "a"), ("g4dn.xlarge", "on-demand", "a")]
    lab.assert_left(images=1)


def test_a_machine_without_quota_is_refused_in_one_line(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("capacity", "no quota"))
    desk = Desk(lab, lambda kind, market, zone: ("VcpuLimitExceeded", "You have requested more vCPU capacity than ..."))
    ended = lab.launch("bake")
    assert (ended.code, len(desk.asked)) == (1, 1)
    assert "You have requested more vCPU capacity" in ended.err
    lab.assert_left(images=0)


def taken_away(machine: FakeMachine) -> None:
    """What AWS does to a spot machine that it wants back."""
    instance = account.backend().get_instance_by_id(machine.id)
    instance.terminate()
    instance.state_reason = StateReason("Server.SpotInstanceTermination: taken", "Server.SpotInstanceTermination")


def taken_away_once() -> Script:
    scripts = [succeed, taken_away]

    def run(machine: FakeMachine) -> None:
        (scripts.pop() if len(scripts) > 1 else scripts[0])(machine)

    return run


@pytest.mark.parametrize("mode", ["bake", "verify"])
def test_a_spot_machine_that_is_taken_away_is_replaced_by_one_on_demand(
    lab: Lab, record_property: Any, mode: str
) -> None:
    record_property("fault", ("machine", "spot taken away"))
    lab.configure(TWO_MARKETS)
    desk = Desk(lab, lambda kind, market, zone: None)
    lab.machines.scripts[mode] = taken_away_once()
    ended = lab.launch("bake")
    assert ended.code == 0, ended.err
    assert "trying another machine" in ended.out
    markets = [market for _, market, _ in desk.asked]
    assert markets == (["spot", "on-demand", "spot"] if mode == "bake" else ["spot", "spot", "on-demand"])
    lab.assert_left(images=1)


def test_machines_that_are_always_taken_away_end_the_bake(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("machine", "spot taken away"))
    lab.machines.scripts["bake"] = taken_away
    ended = lab.launch("bake")
    assert ended.code == 1
    assert "AWS took the machine" in ended.err
    assert len(account.backend().all_instances()) == 3
    lab.assert_left(images=0)


def test_the_second_machine_is_found_again_after_a_crash(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("machine", "spot taken away"))
    lab.machines.scripts["bake"] = taken_away_once()
    lab.launch("bake", fault=Fault(KILLED, "StopInstances"))
    ended = lab.launch("resume")
    assert ended.code == 0, ended.err
    lab.assert_left(images=1)


def test_a_machine_whose_status_checks_fail_is_replaced(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("machine", "status checks fail"))
    broken: list[str] = []

    def silent_once(machine: FakeMachine) -> None:
        broken.append(machine.id) if not broken else succeed(machine)

    lab.machines.scripts["bake"] = silent_once
    lab.cloud.rewrites = lambda name, form, body: (
        body.replace(b"<status>ok</status>", b"<status>impaired</status>")
        if name.startswith("DescribeInstanceStatus") and form.get("InstanceId.1") in broken
        else body
    )
    ended = lab.launch("bake")
    assert ended.code == 0, ended.err
    assert "fails AWS' status checks; trying another machine" in ended.out
    lab.assert_left(images=1)


KEY = "Instance became unhealthy. Termination Reason: Client.InternalError: Client error on launch"
ACTIVITIES = [  # as AWS has them: the newest first
    {"StatusCode": "WaitingForSpotInstanceId", "StatusMessage": "Waiting."},
    {"StatusCode": "Failed", "StatusMessage": "We do not have sufficient g4dn.xlarge capacity.\nLaunching failed."},
    {"StatusCode": "Failed", "StatusMessage": "older"},
]  # fmt: skip


def test_a_groups_machine_that_ec2_ends_at_once_is_told_in_awss_words(
    lab: Lab, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a KMS key that cannot be used: its activity is cancelled."""
    record_property("fault", ("capacity", "a group's machine ended at once"))
    cancelled = ActionResult({"Activities": [{"StatusCode": "Cancelled", "StatusMessage": KEY}, *ACTIVITIES]})
    monkeypatch.setattr(AutoScalingResponse, "describe_scaling_activities", lambda _: cancelled)
    context = open_context(lab.tree, load(lab.config), Display(Console(quiet=True)))
    assert serve._auto_scaling(context).last_failure("newsroom") == KEY


@pytest.mark.parametrize("kind", ["", *FAULTS])
def test_a_group_without_machines_says_why_in_awss_words(
    lab: Lab, record_property: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    record_property("fault", ("DescribeScalingActivities", kind) if kind else ("capacity", "no room for a group"))
    monkeypatch.setattr(serve, "RUNNING_SECONDS", 1.0)
    answer = ActionResult({"Activities": ACTIVITIES})
    monkeypatch.setattr(AutoScalingResponse, "describe_scaling_activities", lambda _: answer)
    lab.configure('[launch]\nname = "newsroom"\nmin_size = 1\n')
    context = open_context(lab.tree, load(lab.config), Display(Console(quiet=True)))
    lab.cloud.log.clear()
    lab.cloud.fault = Fault(kind, "DescribeScalingActivities") if kind else None
    with pytest.raises(BakeError) as caught:
        serve.members(context)
    told = "the group newsroom has fewer than 1 machines after 1 s"
    why = ": We do not have sufficient g4dn.xlarge capacity. Launching failed."
    assert str(caught.value) == told + ("" if kind == DENIED else why)
