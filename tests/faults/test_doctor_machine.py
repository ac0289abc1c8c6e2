"""The doctor's small machine: what it saw is judged, and whatever becomes of it is a row."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from baker.bake import look
from baker.doctor.finding import FAILS, OK
from faults import account
from faults.conftest import Lab
from support.fake_machine import FakeMachine


@pytest.fixture(autouse=True)
def index(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package index answers."""
    monkeypatch.setenv("PIP_INDEX_URL", lab.cloud_url)


MACHINES: dict[str, tuple[dict[str, Any], str, str]] = {
    "old Python": ({"python": "3.9.18"}, "machine, Python", "3.11 to 3.14"),
    "little room": ({"free_gb": 13.0}, "machine, disk", "13.0 GB free, a bake needs 14"),
    "little room without a GPU": ({"free_gb": 5.0, "needed_gb": 6.0}, "machine, disk", "a bake needs 6"),
    "no pip": ({"reachable": {"pip": "timed out"}}, "machine, reaches pip", "timed out"),
    "no mirror": ({"reachable": {"apt": "refused"}}, "machine, reaches apt", "refused"),
    "no hub": ({"reachable": {"hub": "refused"}}, "machine, reaches hub", "refused"),
    "no driver": ({"nvidia_devices": []}, "machine, GPU", "no driver"),
}


def test_a_machine_looks_and_nothing_is_left(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    record_property("fault", ("doctor", "--machine"))
    ended = lab.launch("doctor", "--machine", "--json")
    assert ended.code == 0, ended.err
    told = {row["name"]: row["verdict"] for row in json.loads(ended.out)["findings"]}
    assert told["machine, system"] == told["machine, GPU"] == told["machine, reaches hub"] == OK
    assert "ends itself after 10 minutes" in " ".join(ended.err.split())
    assert account.remains()["instances"] == account.remains()["volumes"] == []


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_machine_saw_is_judged(record_property: Callable[[str, object], None], name: str) -> None:
    record_property("fault", ("doctor", "--machine"))
    facts, row, says = MACHINES[name]
    usual = {
        "python": "3.12.3", "free_gb": 40.0, "needed_gb": 14.0, "reachable": {}, "gpu_on_bus": True,
        "nvidia_devices": ["nvidia0"],
    }  # fmt: skip
    [red] = [finding for finding in look.judge({**usual, **facts}) if finding.verdict == FAILS]
    assert (red.name, says in red.detail, bool(red.mend)) == (row, True, True)


def test_a_machine_that_dies_is_a_row_with_its_last_words(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", ("doctor", "--machine"))

    def dies(machine: FakeMachine) -> None:
        account.CONSOLES[machine.id] = "transcribe-bake: bootstrap: is there a way out of this subnet?\n"
        machine.power_off()

    lab.machines.scripts["look"] = dies
    ended = lab.launch("doctor", "--machine")
    assert ended.code == 1
    assert "is there a way out of this subnet?" in " ".join(ended.out.split())
    assert account.remains()["instances"] == account.remains()["volumes"] == []


@pytest.mark.parametrize("why", ["lease", "zone"])
def test_a_machine_that_cannot_be_started_is_a_row_beside_the_others(
    lab: Lab, record_property: Callable[[str, object], None], why: str
) -> None:
    record_property("fault", ("doctor", "--machine"))
    if why == "lease":
        holder = {"bake": "20260101-000000-abcdef", "who": "ann@desk", "id": "1", "released": False}
        process = {"place": "elsewhere", "pid": 7, "began": "1"}
        account.store("leases/eu-north-1/lease.json", json.dumps({**holder, "process": process}).encode())
    else:
        lab.configure('[instance]\ntypes = ["p9.xlarge"]\n')
    ended = lab.launch("doctor", "--machine", "--json")
    assert ended.code == 1, ended.err
    told = {row["name"]: row for row in json.loads(ended.out)["findings"]}
    assert told["machine"]["verdict"] == FAILS
    assert {"lease": "ann@desk", "zone": "offered in no zone"}[why] in told["machine"]["detail"]
    assert told["bucket"]["verdict"] == OK
    assert account.remains()["instances"] == []
