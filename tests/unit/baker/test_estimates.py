"""What is left of a bake, by the report of the last one, and how a person is told."""

import io
from typing import Any

import pytest
from baker.display import estimates
from baker.display.estimates import Estimate, MachineStep, Moment
from baker.display.progress import Display
from rich.console import Console

STATES = [{"id": "layout", "seconds": 1.0}, {"id": "venv", "seconds": 60.0}, {"id": "model", "seconds": 30.0}]
REPORT: dict[str, Any] = {
    "phases": [
        {"name": "plan", "seconds": 1.0},
        {"name": "bake on the machine", "seconds": 150.0},
        {"name": "verify on the image", "seconds": 20.0},
    ],
    "baked": {
        "phases": [
            {"name": "install Salt", "seconds": 40.0},
            {"name": "first apply", "seconds": 95.0},
            {"name": "seal", "seconds": 5.0},
        ],
        "salt": {"first": {"results": STATES}},
    },
    "verified": {"phases": [{"name": "apply", "seconds": 15.0}]},
}


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (Moment("plan", 0.5), 170.5),
        (Moment("bake on the machine", 50.0), 120.0),
        (Moment("bake on the machine", 170.0), 20.0),
        (Moment("bake on the machine", 9.0, MachineStep("install Salt"), 10.0), 20.0 + 5.0 + 95.0 + 30.0),
        (
            Moment("bake on the machine", 9.0, MachineStep("first apply", "venv 1/2 torch", 1, 3), 9.0, 20.0),
            20 + 5 + 30 + 40,
        ),
        (Moment("bake on the machine", 9.0, MachineStep("first apply", "venv", 1, 3), 99.0, 99.0), 20 + 5 + 30),
        (Moment("bake on the machine", 9.0, MachineStep("first apply", "new", 1, 3), 90.0), 20 + 5 + 5),
        (Moment("bake on the machine", 50.0, MachineStep("new")), 120.0),
        (Moment("stop machine", 1.0), None),
    ],
)
def test_what_is_left(now: Moment, left: float | None) -> None:
    assert estimates.of(REPORT).left(now) == left


@pytest.mark.parametrize("report", [None, {}, {"phases": 1}, {**REPORT, "baked": None}])
def test_what_is_no_report_of_a_bake_tells_nothing(report: Any) -> None:
    assert estimates.of(report) == Estimate()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_person_reads_what_is_left(terminal: bool) -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=80, force_terminal=terminal, highlight=False), clock=lambda: 0.0)
    display.estimate = estimates.of(REPORT)
    with display.phase("bake on the machine"):
        display.step(MachineStep("first apply", "venv 12/73 decorator-5.3.1-py3-none-any.whl", 16, 38))
    assert "about 1:55 left" in file.getvalue()
    assert terminal or "bake on the machine ...  (about 2:50 left)" in file.getvalue()
