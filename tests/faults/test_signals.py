"""Signals that are lost, forged, replayed or late, and machines that stay silent to their deadline: never an image."""

from typing import Any

import pytest
from faults import account
from faults.conftest import Lab
from support.fake_machine import FakeMachine, Script


def lost(machine: FakeMachine) -> None:
    """It did its work, and its report never arrived."""
    machine.power_off()


def forged(machine: FakeMachine) -> None:
    machine.put("report", machine.report(nonce="f" * 32))


def replayed(machine: FakeMachine) -> None:
    machine.put("report", machine.report(build_id="20200101-000000-abcdef-bake", nonce="0" * 32))


def of_another_payload(machine: FakeMachine) -> None:
    machine.put("report", machine.report(payload_sha256="0" * 64))


def garbage(machine: FakeMachine) -> None:
    machine.put("report", b"{ not json")


def failed(machine: FakeMachine) -> None:
    machine.put("report", machine.report(verdict="failure", reason="no room"))
    machine.power_off()


def silent(machine: FakeMachine) -> None:
    """It hangs, and its own timer fails too."""


BAD: dict[Script, tuple[str, str]] = {
    lost: ("lost", "ended without a signal"),
    forged: ("forged", "does not carry this build's nonce"),
    replayed: ("replayed", "another build's"),
    of_another_payload: ("forged", "built from another payload"),
    garbage: ("forged", "not valid JSON"),
    failed: ("failure", "reports a failure: no room"),
    silent: ("deadline reached", "no signal from i-"),
}


@pytest.mark.parametrize("script", BAD, ids=lambda script: script.__name__)
@pytest.mark.parametrize("mode", ["bake", "verify"])
def test_no_good_signal_no_image(lab: Lab, record_property: Any, mode: str, script: Script) -> None:
    what, words = BAD[script]
    record_property("fault", ("signal", what))
    lab.machines.scripts[mode] = script
    ended = lab.launch("bake")
    [line] = ended.err.strip().splitlines()
    assert (ended.code, words in line) == (1, True), line
    lab.assert_left(images=0)


@pytest.mark.parametrize("mode", ["bake", "verify"])
def test_a_late_signal_is_nobodys(lab: Lab, record_property: Any, mode: str) -> None:
    """It comes when the launcher has given up; neither that launcher nor the next one acts upon it."""
    record_property("fault", ("signal", "late"))
    late: list[tuple[FakeMachine, dict[str, Any]]] = []
    lab.machines.scripts[mode] = lambda machine: late.append((machine, machine.report()))
    assert lab.launch("bake").code == 1
    machine, report = late[0]
    machine.put("report", report)
    lab.assert_left(images=0)
    ended = lab.launch("resume", lab.bake())
    assert ended.code in (1, 2), ended.err
    lab.assert_left(images=0)
    assert account.remains()["images"] == []
