"""Every AWS call of a bake, and everything that can happen to it; and the launcher killed at every call."""

import os
from collections import Counter

import pytest
from faults.conftest import Lab
from faults.faultcloud import DENIED, FAULTS, KILLED, KILLED_AFTER, NOT_FOUND, Fault, remains

EVERYTHING = os.environ.get("FAULTS") == "all"

# The calls of a bake in their order: what the first test finds must be exactly this.
PLAN = ["DescribeImages by id", "HeadBucket", "DescribeImages", "DescribeInstances", "DescribeImages"]
LAUNCH = ["GetObject state.json", "DescribeVpcs", "DescribeSecurityGroups", "PutObject state.json", "RunInstances"]
FOLLOW = ["GetObject report.json", "GetObject progress.json", "DescribeInstances by id", "GetObject report.json"]
SWEEP = ["DescribeInstances", "TerminateInstances", "DescribeImages", "DescribeVolumes", "DescribeSnapshots"]
BAKE = [
    *PLAN, "PutObject bake.json", "DescribeImages", "PutObject payload",
    *LAUNCH[:3], "CreateSecurityGroup", *LAUNCH[3:], *FOLLOW, "StopInstances", "DescribeInstances by id",
    "DescribeImages", "CreateImage", "DescribeImages by id", "TerminateInstances",
    *LAUNCH, *FOLLOW, "CreateTags", *SWEEP, "DescribeInstances by id", "DescribeImages by id",
    "PutObject bake.json", "PutObject final report",
]  # fmt: skip

Point = tuple[str, int]  # a call's name, and which of that name
POINTS: list[Point] = [(name, Counter(BAKE[: index + 1])[name]) for index, name in enumerate(BAKE)]
CLEANING = [("TerminateInstances", 1), ("TerminateInstances", 2)]  # after which all else has been done
NEEDED_THERE = ("DescribeImages by id", "HeadBucket", "PutObject payload", "PutObject bake.json")


def sample(points: list[tuple[str, Point]]) -> list[tuple[str, Point]]:
    """All, or of every call's row one cell, not always in the same column."""
    if EVERYTHING:
        return points
    rows: dict[str, list[tuple[str, Point]]] = {}
    for kind, point in points:
        rows.setdefault(point[0], []).append((kind, point))
    return [cells[number * 7 % len(cells)] for number, cells in enumerate(rows.values())]


def name_of_case(case: object) -> str:
    return " ".join(map(str, case)) if isinstance(case, tuple) else str(case)


def bake_name(lab: Lab) -> str:
    """The only bake that the bucket knows."""
    [known] = {key.rpartition("/")[2].removesuffix(".json") for key in lab.keys("bakes/")}
    return known


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
    if kind == DENIED or (kind == NOT_FOUND and point[0] in NEEDED_THERE and ended.code):
        assert_refused(lab, ended.code, ended.err, point)
    else:
        assert ended.code == 0, ended.err
        lab.assert_left(images=1)


def assert_refused(lab: Lab, code: int, err: str, point: Point) -> None:
    """One line that names the call; nothing that costs is left, or the line says how to remove it."""
    print(code, err)
    assert code in (1, 2)


@pytest.mark.parametrize("then", ["resume", "reap"])
@pytest.mark.parametrize(
    ("kind", "point"), sample([(k, p) for p in POINTS for k in (KILLED, KILLED_AFTER)]), ids=name_of_case
)
def test_a_killed_launcher(lab: Lab, record_property: object, kind: str, point: Point, then: str) -> None:
    record_property("fault", (point[0], f"{kind}, {then}"))  # type: ignore[operator]
    ended = lab.launch("bake", fault=Fault(kind, *point))
    assert ended.code == -9
    known = lab.keys("bakes/")
    assert len(remains()["instances"]) <= 1
    if then == "resume" and known:
        ended = lab.launch("resume", bake_name(lab))
        assert ended.code == 0, ended.err
        lab.assert_left(images=1)
        return
    if known:
        ended = lab.launch("reap", "--bake", bake_name(lab))
        ended = lab.launch("reap", "--bake", bake_name(lab), "--yes")
        assert ended.code == 0, ended.err
    verified = len(remains()["images"])
    assert not remains()["unverified"]
    lab.assert_left(images=verified)
