"""One image for all machine tests, baked from this tree or reused; one machine booted from it for most of them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from localcloud import LocalCloud
from support.baked_machine import ROOT, BakedMachine
from support.own_cloud import preparing

OWN_CLOUD = ("test_cycle", "test_localcloud", "test_negative")  # these do not meet the project's cloud


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder boots machines. Two processes may share them by their clouds."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests/machine"):
            item.add_marker("machine")
            item.add_marker(pytest.mark.xdist_group("own" if item.path.stem in OWN_CLOUD else "project"))


@pytest.fixture(scope="session")
def able() -> None:
    """Machines need root and systemd-nspawn; CI may not go without them."""
    lacking = [
        what
        for what, there in (("root", os.geteuid() == 0), ("systemd-nspawn", shutil.which("systemd-nspawn")))
        if not there
    ]
    if lacking:
        reason = f"machine tests need {' and '.join(lacking)}: sudo ./tests/run"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def image(able: None) -> str:
    """The id of a verified image of this tree: a rehearsal bakes it, or finds it unchanged."""
    command = [sys.executable, str(ROOT / "tools/bake.py"), "rehearse"]
    with preparing():
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"the rehearsal failed:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    LocalCloud.ensure(ROOT)
    found: str = json.loads((ROOT / "bake-report.json").read_text())["image"]["id"]
    return found


@pytest.fixture(scope="session")
def shared(image: str) -> Iterator[BakedMachine]:
    """The machine that most tests share."""
    with LocalCloud.machine(ROOT, image) as machine_id:
        yield BakedMachine(machine_id)


@pytest.fixture(scope="module")
def kept(shared: BakedMachine) -> Iterator[BakedMachine]:
    """The shared machine, which the tests of a file leave as right as they found it: an apply takes too long."""
    yield shared
    left = shared.apply()
    assert (left.changed, left.failed) == (set(), {}), "the machine was left with something to repair"


@pytest.fixture
def machine(kept: BakedMachine) -> BakedMachine:
    """The shared machine, serving before each test."""
    kept.wait_serving()
    return kept


@pytest.fixture
def own(image: str) -> Iterator[BakedMachine]:
    """A machine of the test's own, to ruin."""
    with LocalCloud.machine(ROOT, image) as machine_id:
        yield BakedMachine(machine_id)
