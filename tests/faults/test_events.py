"""`bake --json`: what a program reads of a bake, against the schema that it is documented by."""

import json
from pathlib import Path
from typing import Any

import pytest
from baker.display import progress
from faults.conftest import Lab
from jsonschema import Draft202012Validator, FormatChecker
from support.fake_machine import FakeMachine

SCHEMA = json.loads((Path(progress.__file__).parent / "events.schema.json").read_text())


def read(out: str) -> list[dict[str, Any]]:
    """The events of an output, each of which is what the schema says."""
    Draft202012Validator.check_schema(SCHEMA)
    validator = Draft202012Validator(SCHEMA, format_checker=FormatChecker())
    told = [json.loads(line) for line in out.splitlines()]
    for event in told:
        validator.validate(event)
    return told


def of(told: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in told if event["event"] == kind]


def test_a_bake_is_told_from_its_name_to_its_image(lab: Lab) -> None:
    ended = lab.launch("bake", "--json")
    told = read(ended.out)
    [bake] = of(told, "bake")
    assert bake["bake"] == lab.bake()
    begun = [event["phase"] for event in of(told, "phase") if event["status"] == "begun"]
    done = [event["phase"] for event in of(told, "phase") if event["status"] == "done"]
    assert begun == done
    assert begun[:2] == ["plan", "upload payload"]
    [step, *_] = of(told, "step")
    assert (step["phase"], step["state"], step["done"], step["total"]) == ("apply", "layout", 1, 12)
    assert [(verdict["role"], verdict["accepted"]) for verdict in of(told, "verdict")] == [
        ("bake", True),
        ("verify", True),
    ]
    images = of(told, "image")
    assert [image["verified"] for image in images] == [False, True]
    assert told[-1]["event"] == "end"
    assert (told[-1]["exit_code"], told[-1]["reason"]) == (0, "")
    assert images[1]["image"] in ended.err, "a person still reads it all"
    assert all(event["seconds_left"] is None for event in of(told, "phase"))


def test_the_second_bake_is_estimated_by_the_first(lab: Lab) -> None:
    lab.launch("bake")
    told = read(lab.launch("bake", "--json", "--force").out)
    left = [event["seconds_left"] for event in of(told, "phase")[2:]]
    assert left[0] > 0
    assert None not in left
    assert left[-1] == 0
    reused = of(read(lab.launch("bake", "--json").out), "image")
    assert [(image["verified"], image["reused"]) for image in reused] == [(True, True)]


@pytest.mark.parametrize("mode", ["bake", "verify"])
def test_a_failure_is_told_with_its_reason(lab: Lab, mode: str) -> None:
    def fails(machine: FakeMachine) -> None:
        machine.put("log", b"the whole story")
        machine.put("report", machine.report(verdict="failure", reason="no room"))

    lab.machines.scripts[mode] = fails
    ended = lab.launch("bake", "--json")
    told = read(ended.out)
    verdict = of(told, "verdict")[-1]
    assert (verdict["role"], verdict["accepted"], "no room" in verdict["reason"]) == (mode, False, True)
    assert "the whole story" in (lab.tree / verdict["log"]).read_text()
    assert not any(image["verified"] for image in of(told, "image"))
    assert of(told, "phase")[-1]["status"] == "failed"
    assert told[-1]["exit_code"] == 1
    assert f"bake: {told[-1]['reason']}" in ended.err


def test_wrong_usage_is_one_event(lab: Lab) -> None:
    lab.config.write_text("[aws")
    [end] = read(lab.launch("bake", "--json").out)
    assert (end["event"], end["exit_code"], "not valid TOML" in end["reason"]) == ("end", 2, True)
