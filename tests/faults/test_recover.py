"""A launcher that died half-way: what others are told, what they may do, and what nobody does by accident."""

import json

import pytest
from faults import account
from faults.conftest import Lab
from faults.faultcloud import KILLED, KILLED_AFTER, Fault

DEADLINE = 3600.0  # seconds: later than any deadline of the tests' configuration


@pytest.fixture(name="died")
def launcher_that_died(lab: Lab) -> Lab:
    lab.launch("bake", fault=Fault(KILLED, "GetObject progress.json"))
    assert len(account.living()) == 1
    return lab


def test_a_second_bake_is_refused_while_one_is_unfinished(died: Lab) -> None:
    ended = died.launch("bake")
    assert ended.code == 2
    assert f"`bake.py resume {died.bake()}` continues it" in ended.err
    assert len(account.living()) == 1


def test_status_tells_what_exists(died: Lab) -> None:
    [told] = json.loads(died.launch("status", "--json").out)
    assert (told["name"], told["instances"]) == (died.bake(), account.living())
    assert told["is"].startswith("unfinished, bake until ")
    died.launch("resume")
    [told] = json.loads(died.launch("status", "--json").out)
    assert (told["is"], list(told["images"].values())) == ("verified", ["verified"])
    assert died.bake() in died.launch("status").out


def test_reap_leaves_a_bake_alone_until_its_deadline_and_touches_nothing_unasked(died: Lab) -> None:
    assert "nothing past its deadline is left" in died.launch("reap", "--yes").out
    ended = died.launch("reap", late=DEADLINE)
    assert f"would remove {account.living()[0]}" in ended.out
    assert len(account.living()) == 1
    ended = died.launch("reap", "--yes", late=DEADLINE)
    assert "removed 1" in ended.out
    died.assert_left(images=0)


def test_reap_finds_an_image_that_nobody_verified(lab: Lab) -> None:
    lab.launch("bake", fault=Fault(KILLED_AFTER, "CreateImage"))
    assert "nothing past" in lab.launch("reap", "--yes").out
    assert "not verified" in lab.launch("reap", "--yes", late=3 * DEADLINE).out
    lab.assert_left(images=0)


def test_reap_finds_a_snapshot_whose_image_is_gone(lab: Lab) -> None:
    lab.launch("bake", fault=Fault(KILLED_AFTER, "CreateImage"))
    lab.launch("reap", "--bake", lab.bake(), "--yes", fault=Fault(KILLED_AFTER, "DeregisterImage"))
    assert account.remains()["snapshots"]
    lab.launch("reap", "--yes", late=3 * DEADLINE)
    lab.assert_left(images=0)


def test_a_bake_is_not_resumed_from_another_tree(died: Lab) -> None:
    states = died.tree / "salt/states/layout.sls"
    before = states.read_text()
    states.write_text("other: test.nop\n")
    ended = died.launch("resume")
    states.write_text(before)
    assert ended.code == 2
    assert "the tree is not what" in ended.err
    assert len(account.living()) == 1


def test_a_bake_is_resumed_only_within_its_time(died: Lab) -> None:
    account.backend().terminate_instances(account.living())
    ended = died.launch("resume", died.bake(), late=DEADLINE)
    assert ended.code == 1
    assert "its time ended at" in ended.err
    died.assert_left(images=0)


def test_a_machine_that_ended_unwatched_is_not_started_again(died: Lab) -> None:
    died.machines.terminate(account.living())
    account.backend().terminate_instances(account.living())
    ended = died.launch("resume", died.bake())
    assert (ended.code, "ended while no launcher was there" in ended.err) == (1, True)
    died.assert_left(images=0)


def test_what_is_not_known_is_not_resumed(lab: Lab) -> None:
    assert "no bake is unfinished" in lab.launch("resume").err
    ended = lab.launch("resume", "20200101-000000-abcdef")
    assert (ended.code, "knows no bake" in ended.err) == (2, True)
