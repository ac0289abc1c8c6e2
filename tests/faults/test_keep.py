"""`bake --keep`: a machine that fails stays until its deadline, is named, is swept, and never becomes an image."""

import json
import os
import signal
from typing import Any

import pytest
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, Fault
from support.fake_machine import FakeMachine

DEADLINE = 3600.0  # seconds: later than any deadline of the tests' configuration


def fails(machine: FakeMachine) -> None:
    assert machine.parameters["keep"] is True
    machine.put("report", machine.report(verdict="failure", reason="no room"))


@pytest.fixture(name="kept", params=["bake", "verify"])
def bake_whose_machine_is_kept(lab: Lab, request: Any) -> Lab:
    lab.machines.scripts[request.param] = fails
    ended = lab.launch("bake", "--keep")
    [line] = ended.err.strip().splitlines()
    [machine] = account.living()
    assert ended.code == 1
    assert "the machine reports a failure: no room" in line
    assert f"its machine {machine} is kept until " in line
    assert f"`bake.py reap --bake {lab.bake()} --yes` ends it before" in line
    assert f"aws ssm start-session --region eu-north-1 --target {machine}" in ended.out
    left = account.remains()
    assert (left["images"], left["snapshots"]) == ([], [])
    lab.machines.scripts[request.param] = lambda machine: machine.put("report", machine.report())
    return lab


def test_it_is_named_and_in_the_way_until_it_is_reaped(kept: Lab) -> None:
    [machine] = account.living()
    [told] = json.loads(kept.launch("status", "--json").out)
    assert (told["instances"], told["is"].startswith("failed, its machine kept until ")) == ([machine], True)
    ended = kept.launch("bake")
    assert (ended.code, f"its machine {machine} is kept until" in ended.err) == (2, True)
    assert "nothing past its deadline" in kept.launch("reap", "--yes").out
    assert account.living() == [machine]
    assert kept.launch("reap", "--bake", kept.bake(), "--yes").code == 0
    kept.assert_left(images=0)


def test_it_is_swept_after_its_deadline(kept: Lab) -> None:
    assert kept.launch("reap", "--yes", late=DEADLINE).code == 0
    kept.assert_left(images=0)


def test_nothing_that_it_says_later_makes_an_image(kept: Lab) -> None:
    """Somebody who repairs the machine by hand may make its driver succeed."""
    machine = FakeMachine(kept.machines.client(), account.living()[0], "")
    same = {name: machine.parameters[name] for name in ("build_id", "nonce", "mode")}
    machine.put("report", {"schema": 1, **same, "verdict": "success", "reason": ""})
    ended = kept.launch("resume", kept.bake())
    assert (ended.code, "has failed, so it cannot be resumed" in ended.err) == (2, True)
    assert account.remains()["images"] == []
    kept.launch("reap", "--bake", kept.bake(), "--yes")
    kept.assert_left(images=0)


def ends(machine: FakeMachine) -> None:
    machine.power_off()


def is_silent(machine: FakeMachine) -> None:
    """Beyond its deadline, which its own timer misses as well."""


@pytest.mark.parametrize("script", [ends, is_silent])
def test_what_will_not_end_itself_is_not_kept(lab: Lab, script: Any) -> None:
    lab.machines.scripts["bake"] = script
    ended = lab.launch("bake", "--keep")
    assert (ended.code, "is kept" in ended.err) == (1, False)
    lab.assert_left(images=0)


def test_a_machine_that_is_off_is_not_kept(lab: Lab) -> None:
    ended = lab.launch("bake", "--keep", fault=Fault(DENIED, "CreateImage"))
    assert (ended.code, "is kept" in ended.err) == (1, False)
    lab.assert_left(images=0)


def test_who_interrupts_wants_nothing_kept(lab: Lab) -> None:
    def interrupt(name: str) -> None:
        if name == "GetObject progress.json":
            os.kill(lab.cloud.launcher, signal.SIGINT)

    lab.cloud.meets = interrupt
    lab.machines.scripts["bake"] = fails
    ended = lab.launch("bake", "--keep")
    assert (ended.code, "interrupted by SIGINT" in ended.err) == (1, True)
    lab.assert_left(images=0)


def test_a_good_bake_keeps_nothing(lab: Lab) -> None:
    assert lab.launch("bake", "--keep").code == 0
    lab.assert_left(images=1)
