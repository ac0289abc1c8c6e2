"""Every AWS call of a bake, and everything that can happen to it; and the launcher killed at every call."""

import os
from collections import Counter
from typing import TypeVar

import pytest
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, FAULTS, INTERRUPTED, KILLED, KILLED_AFTER, NOT_FOUND, Fault
from faults.launchers import Ended

EVERYTHING = os.environ.get("FAULTS") == "all"

# The calls of a bake in their order: what the first test finds must be exactly this.
PLAN = [
    "DescribeImages by id", "HeadBucket", "DescribeImages", "DescribeSubnets", "DescribeInstanceTypeOfferings",
    "GetObject lease.json", "PutObject lease.json",
    "DescribeInstances", "DescribeImages", "DescribeVpcs", "DescribeSecurityGroups", "CreateSecurityGroup dry",
    "RunInstances dry", "StopInstances dry", "CreateImage dry", "TerminateInstances dry", "CreateTags dry",
    "DeregisterImage dry", "DeleteSnapshot dry", "DeleteVolume dry",
]  # fmt: skip
MADE_UP = PLAN[-7:]  # dry runs on things that do not exist, of which a denial proves nothing
LAUNCH = [
    "GetObject state.json", "PutObject addresses.json", "DescribeVpcs", "DescribeSecurityGroups",
    "PutObject lease.json", "PutObject state.json",
    "RunInstances",
]  # fmt: skip
FOLLOW = ["GetObject report.json", "GetObject progress.json", "DescribeInstanceStatus by id", "GetObject report.json"]
LOG = ["GetObject log.txt", "GetConsoleOutput"]
SWEEP = ["DescribeInstances", "TerminateInstances", "DescribeImages", "DescribeVolumes", "DescribeSnapshots"]
BAKE = [
    *PLAN, "PutObject bake.json", "DescribeImages", "PutObject payload",
    *LAUNCH[:4], "CreateSecurityGroup", *LAUNCH[4:], *FOLLOW,
    *LOG, "PutObject lease.json", "StopInstances", "DescribeInstances by id",
    "PutObject manifest.json", "PutObject sbom.cdx.json",
    "PutObject lease.json", "DescribeImages", "CreateImage", "DescribeImages by id", "TerminateInstances",
    *LAUNCH, *FOLLOW, *LOG, "PutObject lease.json", "CreateTags", *SWEEP, "DescribeInstances by id",
    "PutObject bake.json", "PutObject lease.json", "PutObject final report", "PutObject timeline",
]  # fmt: skip

Point = tuple[str, int]  # a call's name, and which of that name
POINTS: list[Point] = [(name, Counter(BAKE[: index + 1])[name]) for index, name in enumerate(BAKE)]
ENDURED = [
    *[(name, number) for name in LOG for number in (1, 2)],
    ("PutObject bake.json", 2),
    ("PutObject lease.json", 7),
    ("PutObject final report", 1),
    ("PutObject timeline", 1),
]  # denied, they are told, and change nothing
UNMENDED = (  # what is not there then is an error, and no delay
    "HeadBucket", "DescribeImages by id", "PutObject", "DescribeSubnets", "DescribeInstanceTypeOfferings",
    "DescribeVpcs",
)  # fmt: skip


Kind = TypeVar("Kind")


def sample(points: list[tuple[Kind, Point]]) -> list[tuple[Kind, Point]]:
    """All, or of every call's row one cell, not always in the same column."""
    if EVERYTHING:
        return points
    rows: dict[str, list[tuple[Kind, Point]]] = {}
    for kind, point in points:
        rows.setdefault(point[0], []).append((kind, point))
    return [cells[number * 7 % len(cells)] for number, cells in enumerate(rows.values())]


def name_of_case(case: object) -> str:
    return " ".join(map(str, case)) if isinstance(case, tuple) else str(case)


def test_the_calls_of_a_bake_are_those_that_the_table_tries(lab: Lab) -> None:
    ended = lab.launch("bake")
    assert ended.code == 0, ended.err
    assert lab.cloud.log == BAKE
    lab.assert_left(images=1)


@pytest.mark.parametrize(("kind", "point"), sample([(k, p) for p in POINTS for k in FAULTS]), ids=name_of_case)
def test_a_call_that_goes_wrong(lab: Lab, record_property: object, kind: str, point: Point) -> None:
    record_property("fault", (point[0], kind))  # type: ignore[operator]
    fault = Fault(kind, *point)
    ended = lab.launch("bake", fault=fault)
    assert fault.hits, "the fault was never met"
    assert "Traceback" not in ended.err
    if ended.code and (kind == DENIED or (kind == NOT_FOUND and point[0].startswith(UNMENDED))):
        assert_refused(lab, ended, point)
    else:
        assert kind != DENIED or point in ENDURED or point[0] in MADE_UP, "it was denied, and nobody said so"
        assert ended.code == 0, ended.err
        lab.assert_left(images=1)


def assert_refused(lab: Lab, ended: Ended, point: Point) -> None:
    """One line that names the call. Nothing that costs is left, or the launcher has said how to remove it."""
    [line] = ended.err.strip().splitlines()
    usage = POINTS.index(point) < len(PLAN) or "no default VPC" in line
    assert ended.code == (2 if usage else 1), line
    assert usage or line.startswith("bake: AWS refused "), line
    if "cleaning up failed" in ended.out:
        assert f"bake.py reap --bake {lab.bake()} --yes" in ended.out
        assert lab.launch("reap", "--bake", lab.bake(), "--yes").code == 0
    left = account.remains()
    assert left["unverified"] == []
    lab.assert_left(images=len(left["images"]))


INTERRUPTS = [(INTERRUPTED, point) for point in POINTS]


@pytest.mark.parametrize(("kind", "point"), sample(INTERRUPTS)[:: 1 if EVERYTHING else 5], ids=name_of_case)
def test_ctrl_c_at_any_call_is_one_line_and_leaves_nothing(
    lab: Lab, record_property: object, kind: str, point: Point
) -> None:
    record_property("fault", (point[0], kind))  # type: ignore[operator]
    fault = Fault(kind, *point)
    ended = lab.launch("bake", fault=fault)
    assert fault.hits, "the fault was never met"
    cleaning = "still cleaning up" in ended.out  # the bake is good, or what it had made is being removed already
    if ended.code == 0 and cleaning:
        lab.assert_left(images=1)
        return
    [line] = ended.err.strip().splitlines()
    assert ended.code == 1
    assert line.startswith("bake: interrupted by SIGINT; ")
    left = account.remains()
    assert left["unverified"] == []
    lab.assert_left(images=len(left["images"]))
    if not EVERYTHING:
        assert lab.launch("bake").code == 0, "the next one begins at once"


KILLS = [(kind, then) for kind in (KILLED, KILLED_AFTER) for then in ("resume", "reap")]


@pytest.mark.parametrize(("kill", "point"), sample([(k, p) for p in POINTS for k in KILLS]), ids=name_of_case)
def test_a_killed_launcher(lab: Lab, record_property: object, kill: tuple[str, str], point: Point) -> None:
    kind, then = kill
    record_property("fault", (point[0], f"{kind}, {then}"))  # type: ignore[operator]
    ended = lab.launch("bake", fault=Fault(kind, *point))
    assert ended.code == -9
    known = account.keys("bakes/")
    assert len(account.remains()["instances"]) <= 1
    if then == "resume" and known:
        ended = lab.launch("resume", lab.bake())
        assert ended.code == 0, ended.err
        lab.assert_left(images=1)
        return
    if known:
        ended = lab.launch("reap", "--bake", lab.bake(), "--yes")
        assert ended.code == 0, ended.err
    verified = len(account.remains()["images"])
    assert not account.remains()["unverified"]
    lab.assert_left(images=verified)
