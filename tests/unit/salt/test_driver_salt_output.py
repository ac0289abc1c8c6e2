"""What salt-call answers decides whether a machine may become an image."""

import json
from typing import Any

import pytest
from driver import salt_output
from driver.parameters import DriverError

LINE = "2026-01-20 12:00:00,000 [salt.state       :2384][INFO    ][293] "
HIGHSTATE = {
    "layout-root": {
        "file": [{"name": "/opt/transcribe"}, "directory", {"order": 1}],
        "__sls__": "a",
        "__env__": "base",
    },
    "packages-installed": {"pkg": [{"pkgs": ["ffmpeg"]}, "installed"], "__sls__": "b", "__env__": "base"},
}


def state(result: bool | None, number: int, **more: Any) -> dict[str, Any]:
    return {"result": result, "changes": {}, "comment": "", "__run_num__": number, "duration": 1500.0, **more}


def test_answer_is_found_behind_noise() -> None:
    assert salt_output.local('a warning\n{"local": {"x": 1}}') == {"x": 1}


@pytest.mark.parametrize("text", ["", "no json", '{"local": ', '{"other": 1}', "{}"])
def test_no_answer_is_a_failure_with_what_was_said(text: str) -> None:
    with pytest.raises(DriverError, match=r"no answer.*the cause"):
        salt_output.local(text, "the cause")


def test_plan_knows_ids_by_what_the_log_prints() -> None:
    plan = salt_output.plan(HIGHSTATE)
    assert plan.total == 2
    assert plan.ids["file", "/opt/transcribe"] == "layout-root"
    assert plan.ids["pkg", "packages-installed"] == "packages-installed"


@pytest.mark.parametrize("answer", [[], {}, ["Rendering SLS 'base:x' failed: oops"], "oops"])
def test_states_that_do_not_compile(answer: Any) -> None:
    with pytest.raises(DriverError, match="do not compile"):
        salt_output.plan(answer)


def test_follower_counts_states_and_repeats_none() -> None:
    follower = salt_output.Follower(salt_output.plan(HIGHSTATE))
    assert not follower.read(LINE + "Calling roots find_file")
    assert follower.state == ""
    assert follower.read(LINE + "Executing state file.directory for [/opt/transcribe]")
    assert (follower.state, follower.done) == ("layout-root", 0)
    assert follower.read(LINE + "Executing state pkg.installed for [packages-installed]")
    assert follower.read(LINE + "Executing state pkg.mod_watch for [packages-installed]")
    assert (follower.state, follower.done) == ("packages-installed", 1)
    assert follower.read(LINE + "progress of venv: 12/96 torch")
    assert follower.state == "packages-installed 12/96 torch"
    assert follower.read(LINE + "Executing state file.directory for [/opt/transcribe]")
    assert follower.detail == ""


def test_applied_counts_in_the_order_of_running() -> None:
    result = salt_output.applied(
        {
            "file_|-b_|-/b_|-managed": state(True, 1, changes={"diff": "x"}, __id__="b", start_time="00:00:01.5"),
            "file_|-a_|-/a_|-managed": state(True, 0, __id__="a", start_time="23:59:59.250000"),
        },
        2.5,
    )
    assert (result["states"], result["changed"], result["failed"], result["seconds"]) == (2, 1, [], 2.5)
    assert [item["id"] for item in result["results"]] == ["a", "b"]
    assert result["results"][1] == {"id": "b", "result": True, "changed": True, "seconds": 1.5, "began": 2.25}


@pytest.mark.parametrize("result", [False, None])
def test_only_true_is_a_success(result: bool | None) -> None:
    answer = {"file_|-a_|-/a_|-managed": state(result, 0, comment="no\n room")}
    assert salt_output.applied(answer, 1.0)["failed"] == [{"id": "a", "comment": "no room"}]


@pytest.mark.parametrize("answer", [[], {}, ["Pillar failed to render"], None])
def test_nothing_applied_is_a_failure(answer: Any) -> None:
    with pytest.raises(DriverError, match="nothing was applied"):
        salt_output.applied(answer, 1.0)


def test_reason_is_the_state_that_failed_by_itself() -> None:
    failed = [
        {"id": "b", "comment": "One or more requisite failed: transcribe.a"},
        {"id": "a", "comment": "no space left"},
    ]
    assert salt_output.first_reason({"failed": failed}) == "a: no space left (and 1 more)"
    assert salt_output.first_reason({"failed": failed[:1]}).startswith("b: One or more")


def test_report_survives_json() -> None:
    answer = json.loads(json.dumps({"x_|-a_|-/a_|-y": state(True, 0)}))
    assert json.loads(json.dumps(salt_output.applied(answer, 0.1)))["results"][0]["id"] == "a"
