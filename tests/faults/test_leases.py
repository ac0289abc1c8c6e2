"""Launchers side by side: in the same second, beside a living one, and one that slept while another took over."""

import json
import os
import signal
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from baker.recovery.lease import LEASE_SECONDS
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DELAYED, KILLED, PAUSED, Fault
from faults.launchers import Launcher

LEASE = "leases/eu-north-1/lease.json"
TAKING = "GetObject lease.json"


def age(seconds: float = LEASE_SECONDS) -> None:
    """The lease was last written so much earlier."""
    account.stored(LEASE).last_modified -= timedelta(seconds=seconds)


def elsewhere() -> None:
    """The lease's holder is a process of another computer."""
    told = json.loads(account.stored(LEASE).value)
    account.store(LEASE, json.dumps({**told, "process": {**told["process"], "place": "another"}}).encode())


def paused(lab: Lab, point: tuple[str, int], kind: str = PAUSED) -> Launcher:
    """A bake that stands still at a call."""
    launcher = lab.start("bake", fault=Fault(kind, *point))
    seen = os.waitid(os.P_PID, launcher.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert seen is not None
    assert seen.si_code == os.CLD_STOPPED, "it ended before"
    return launcher


def goes_on(lab: Lab, launcher: Launcher) -> None:
    os.kill(launcher.pid, signal.SIGCONT)
    lab.cloud.goes_on.set()


@pytest.mark.parametrize("before", ["never taken", "given back", "expired"])
@pytest.mark.parametrize("count", [2, 4])
def test_of_launchers_in_the_same_second_one_bakes(lab: Lab, record_property: Any, count: int, before: str) -> None:
    """Each has seen that nobody holds the lease before any of them writes it."""
    record_property("fault", ("launchers", "same second"))
    if before == "given back":
        lab.launch("resume", "20200101-000000-abcdef")
        assert lab.launch("reap", "--yes").code == 0
    if before == "expired":
        lab.launch("bake", fault=Fault(KILLED, "PutObject bake.json"))
        elsewhere()
        age()
    together = threading.Barrier(count)
    seen: list[str] = []

    def meet(name: str) -> None:
        if name == TAKING and len(seen) < count:
            seen.append(name)
            together.wait(timeout=60)

    lab.cloud.meets = meet
    began = [lab.start("bake") for _ in range(count)]
    ended = [launcher.ended() for launcher in began]
    assert sorted(one.code for one in ended) == [0, *[2] * (count - 1)], [one.err for one in ended]
    for one in ended:
        assert one.code == 0 or "is at work on" in one.err
        assert len(one.err.strip().splitlines()) == (1 if one.code else 0)
    lab.assert_left(images=1)
    assert len(account.keys("bakes/")) == 1


def test_nobody_touches_what_a_living_launcher_works_on(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("launchers", "beside a living one"))
    launcher = paused(lab, ("GetObject progress.json", 1))
    [told] = json.loads(lab.launch("status", "--json").out)
    assert told["is"].startswith("under way, by ")
    for command in (["bake"], ["resume"], ["resume", lab.bake()], ["reap", "--bake", lab.bake(), "--yes"]):
        ended = lab.launch(*command)
        [line] = ended.err.strip().splitlines()
        assert ended.code == 2
        assert f"(process {launcher.pid}) is at work on {lab.bake()} and holds the lease until " in line
    late = lab.launch("reap", "--yes", late=3600.0)
    assert (late.code, "nothing past its deadline is left" in late.out) == (0, True)
    assert len(account.living()) == 1
    goes_on(lab, launcher)
    ended = launcher.ended()
    assert ended.code == 0, ended.err
    lab.assert_left(images=1)


@pytest.mark.parametrize("kind", [PAUSED, DELAYED])
@pytest.mark.parametrize(
    "point",
    [
        ("PutObject payload", 1), ("PutObject state.json", 1), ("RunInstances", 1), ("GetObject report.json", 1),
        ("StopInstances", 1), ("PutObject manifest.json", 1), ("CreateImage", 1), ("RunInstances", 2),
        ("GetObject report.json", 3),
    ],
    ids=lambda point: f"{point[0]} {point[1]}",
)  # fmt: skip
def test_one_that_slept_while_another_resumed_touches_nothing(
    lab: Lab, record_property: Any, point: tuple[str, int], kind: str
) -> None:
    """What it asked for just before is done at once, or only when all is over."""
    record_property("fault", ("launchers", f"slept meanwhile, {kind}"))
    launcher = paused(lab, point, kind)
    age()
    ended = lab.launch("resume", lab.bake())
    assert ended.code == 0, ended.err
    goes_on(lab, launcher)
    ended = launcher.ended()
    assert ended.code == 1, ended
    [line] = ended.err.strip().splitlines()
    assert "this one did not renew it for 60 s" in line or "another launcher has asked for" in line
    lab.assert_left(images=1)
    [told] = json.loads(lab.launch("status", "--json").out)
    assert told["is"] == "verified"


def test_one_that_slept_while_another_baked_makes_nothing(lab: Lab, record_property: Any) -> None:
    record_property("fault", ("launchers", "slept meanwhile, paused"))
    launcher = paused(lab, ("PutObject bake.json", 1))
    age()
    assert lab.launch("bake").code == 0
    goes_on(lab, launcher)
    ended = launcher.ended()
    assert (ended.code, "this one did not renew it" in ended.err) == (1, True)
    lab.assert_left(images=1)


def test_a_launcher_that_died_elsewhere_is_waited_for_and_one_that_died_here_is_not(
    lab: Lab, record_property: Any
) -> None:
    record_property("fault", ("launchers", "died elsewhere"))
    lab.launch("bake", fault=Fault(KILLED, "GetObject progress.json"))
    mine = account.stored(LEASE).value
    elsewhere()
    ended = lab.launch("resume")
    assert (ended.code, "holds the lease until" in ended.err) == (2, True)
    age(LEASE_SECONDS - 20)
    assert lab.launch("resume").code == 2
    account.store(LEASE, mine)
    began = time.time()
    assert lab.launch("resume").code == 0
    assert account.stored(LEASE).last_modified.timestamp() > began - 1
    lab.assert_left(images=1)


def test_a_lease_that_nobody_can_read_is_nobodys(lab: Lab) -> None:
    lab.launch("bake", fault=Fault(KILLED, "GetObject progress.json"))
    account.store(LEASE, b"{ not json")
    assert lab.launch("resume").code == 0
    lab.assert_left(images=1)
