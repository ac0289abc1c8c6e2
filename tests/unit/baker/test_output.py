"""What a person sees: lines while a bake runs, a summary at its end, one line and an exit code when it fails."""

import argparse
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from baker import cli
from baker.aws.images import Ami
from baker.aws.instances import Ec2Instance
from baker.bake import report
from baker.commands import recover, tables
from baker.display.estimates import MachineStep
from baker.display.progress import Display
from baker.images.catalog import Retention
from baker.images.diff import Change, ImageDifference
from baker.recovery import cleanup, lease, records
from rich.console import Console

NOW = lambda: datetime(2026, 11, 25, 10, 5, tzinfo=UTC)  # noqa: E731
APPLY = {"states": 37, "changed": 30, "failed": [], "seconds": 60.0, "results": []}
MACHINE: dict[str, Any] = {
    "phases": [{"name": "first apply", "seconds": 61.2}],
    "word_error_rate": 0.0625,
    "salt": {"first": APPLY, "second": {**APPLY, "changed": 0}},
    "checks": [{"name": "api-unit [x]", "verdict": "pass", "detail": "active"}],
    "clip": {"text": " And Mr. John [Dashwood]", "audio_seconds": 7.0, "seconds": 2.0},
    "audio": None,
    "boot_to_ready_seconds": 6.5,
    "facts": {},
}
REPORT: dict[str, Any] = {
    "reused": False,
    "source_image": {"id": "ami-0", "name": "debian-12-amd64-1"},
    "image": {"id": "ami-1", "name": "transcribe-1"},
    "content_hash": "c" * 64,
    "reference": "And Mr. John Dashwood",
    "seconds": 100.0,
    "phases": [{"name": "plan", "seconds": 1.0}, {"name": "bake on the machine", "seconds": 90.0}],
    "baked": MACHINE,
    "verified": {**MACHINE, "audio": {"text": "hej", "seconds": 1.0}},
}


def recorded(width: int = 100, *, terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, force_terminal=terminal, highlight=False), file


def test_the_summary_says_what_matters() -> None:
    console, file = recorded()
    tables.print_report(console, REPORT)
    text = file.getvalue()
    heard = ("Mr. John [Dashwood]", "And Mr. John Dashwood", "6.2%", "hej")
    for words in (
        "second apply: 0 changes",
        "first apply",
        "61.2",
        "api-unit [x]",
        "pass",
        *heard,
        "6.5 s",
        "ami-1",
        "debian-12",
    ):
        assert words in text


def test_a_failed_check_is_marked_where_it_failed() -> None:
    console, file = recorded()
    failing = {**MACHINE, "checks": [{"name": "cache", "verdict": "fail", "detail": "gone"}]}
    tables.print_report(console, {**REPORT, "verified": failing})
    [line] = [line for line in file.getvalue().splitlines() if "cache" in line]
    assert "fail" in line
    assert "–" in line


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_detail_is_cut_and_costs_no_other_column(width: int) -> None:
    console, file = recorded(width)
    long = {**MACHINE, "checks": [{"name": "component x.service", "verdict": "pass", "detail": "{" + "y" * 600}]}
    tables.print_report(console, {**REPORT, "baked": long, "verified": long})
    [line] = [line for line in file.getvalue().splitlines() if "component x.service" in line]
    assert line.split()[2:4] == ["pass", "pass"]
    assert line.rstrip().endswith("…")
    assert sum("yyy" in line for line in file.getvalue().splitlines()) == 1


def test_what_other_commands_take_is_whole_on_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    console, file = recorded(80)
    image = Ami("ami-8f5447e4b05f2fbc4", "transcribe-rehearsal-20261125-051935-431ae8", "available",
                  "2026-11-25T05:19:35.000Z", "/dev/xvda", 40, (), {})  # fmt: skip
    entry = SimpleNamespace(id=image.id, image=image, home="eu-north-1", replicas={}, needs=["i-1 runs from it"] * 3)
    tables.print_catalog(console, [entry])  # type: ignore[list-item]
    machine = Ec2Instance("i-6c4443cc031f65a1e", "running", "b", "bake", "g4dn.xlarge", "eu-north-1a", None)
    bake = records.BakeRecord("20261125-100351-431ae8", "", "", "", "2026-11-25T10:03:51+00:00")
    found = records.BakeState(bake, (machine,), ())
    monkeypatch.setattr(recover, "_open", lambda root, options: SimpleNamespace(display=Display(console), now=NOW))
    monkeypatch.setattr(records, "survey", lambda context: [found])
    monkeypatch.setattr(
        lease, "present", lambda context: lease.LeaseHolder(bake.name, "somebody@a-computer.example.org")
    )
    recover.status(cli.ROOT, argparse.Namespace(json=False))
    told = file.getvalue()
    for word in (image.id, bake.name, machine.id):
        assert word in told
    assert max(map(len, told.splitlines())) <= 80


def test_a_reused_image_without_an_earlier_report_still_has_its_line() -> None:
    console, file = recorded()
    tables.print_report(console, {**REPORT, "reused": True, "baked": None, "verified": None})
    assert "reused  ami-1" in file.getvalue()


def test_plain_lines_tell_phases_and_states_once() -> None:
    console, file = recorded()
    ticks = iter(range(100))
    display = Display(console, clock=lambda: float(next(ticks)))
    with display.phase("bake on the machine"):
        display.step(MachineStep("first apply", "layout", 1, 37))
        display.step(MachineStep("first apply", "layout", 1, 37))
        display.step(MachineStep("second apply", "", 0, 0))
    lines = [line.strip() for line in file.getvalue().splitlines()]
    assert lines[:3] == ["bake on the machine ...", "first apply", "1/37 layout"]
    assert sum("1/37 layout" in line for line in lines) == 1
    assert lines[3].startswith("✓ first apply")
    assert lines[-1].startswith("✓ bake on the machine")
    assert [name for name, _ in display.phases] == ["bake on the machine"]


def fail_in_phase(display: Display) -> None:
    with display.phase("bake on the machine"):
        display.step(MachineStep("first apply", "venv-synced", 15, 37))
        print(1 / 0)


def test_a_failed_phase_says_where_it_was() -> None:
    for terminal in (False, True):
        console, file = recorded(terminal=terminal)
        display = Display(console)
        with pytest.raises(ZeroDivisionError):
            fail_in_phase(display)
        assert "at venv-synced" in file.getvalue()
        assert "✗" in file.getvalue()
        assert display.phases == []


HOSTILE = ("[/]", "[/dim]", "[bold", "[link=file:///x]y[/link]", "[red]x", "\\[/bold]", "x\\", ":bomb:", "[@click=x]y")
ESCAPES = "\x1b]0;title\x07 \x1b[2J \x9b2J \r\x08"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_machine_calls_things_is_shown_as_it_is(text: str, terminal: bool) -> None:
    """A closing tag in a phase's name ended the launcher with a traceback, before it had stopped the machine."""
    console, file = recorded(300, terminal=terminal)
    display = Display(console)

    def fail() -> None:
        with display.phase(f"copy {text}"):
            display.step(MachineStep(f"one {text}", f"state {text}", 1, 2))
            display.step(MachineStep(f"two {text}", f"other {text}"))
            display.note(f"note {text}", "yellow")
            print(1 / 0)

    with pytest.raises(ZeroDivisionError):
        fail()
    told = file.getvalue()
    for word in ("copy", "one", "two", "other", "note"):
        assert f"{word} {text}" in told


@pytest.mark.parametrize("text", HOSTILE)
def test_what_others_name_is_shown_as_it_is_in_tables(text: str) -> None:
    console, file = recorded(300)
    machine = {**MACHINE, "phases": [{"name": f"phase {text}", "seconds": 1.0}], "clip": {"text": f"clip {text}"}}
    machine |= {"checks": [{"name": f"check {text}", "verdict": "pass", "detail": f"detail {text}"}]}
    image = {"id": f"ami {text}", "name": f"name {text}"}
    phases = [{"name": "bake on the machine", "seconds": 1.0}, {"name": f"outer {text}", "seconds": 1.0}]
    heard = {**machine, "audio": {"text": f"audio {text}"}}
    tables.print_report(console, {**REPORT, "image": image, "phases": phases, "baked": machine, "verified": heard})
    named = Ami(f"ami-0 {text}", f"catalog {text}", "available", "2026", "/dev/xvda", 40, (), {})
    entry: Any = SimpleNamespace(id=named.id, image=named, home="here", replicas={}, needs=[f"needs {text}"])
    tables.print_catalog(console, [entry])
    tables.print_retention(console, [Retention(entry, (f"reason {text}",))])
    tables.print_difference(console, [named, named], ImageDifference({"g": [Change(f"what {text}", "", "a")]}, {}))
    words = ("phase", "clip", "check", "detail", "ami", "name", "outer", "audio", "catalog", "needs", "reason", "what")
    for word in words:
        assert f"{word} {text}" in file.getvalue()


def test_what_would_be_removed_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    console, file = recorded(300)
    machine = Ec2Instance("i-1", "running", "bake [/x]", "bake", "g4dn [/y]", "zone [/z]", None)
    record = records.BakeRecord("name [/n]", "", "", "", "2026-11-25T10:03:51+00:00")
    context: Any = SimpleNamespace(display=Display(console), now=NOW)
    monkeypatch.setattr(recover, "_open", lambda root, options: context)
    monkeypatch.setattr(records, "survey", lambda context: [records.BakeState(record, (machine,), ())])
    monkeypatch.setattr(lease, "present", lambda context: None)
    monkeypatch.setattr(cleanup, "of_bake", lambda context, name: cleanup.Leftovers([machine], [], [], []))
    recover.status(cli.ROOT, argparse.Namespace(json=False))
    recover.reap(cli.ROOT, argparse.Namespace(yes=False, bake="b"))
    for words in ("name [/n]", "g4dn [/y] zone [/z], running, of bake [/x]"):
        assert words in file.getvalue()


def test_a_machine_cannot_move_the_cursor_or_name_the_window() -> None:
    console, file = recorded(300)
    display = Display(console)
    with display.phase("bake"):
        display.step(MachineStep(f"first {ESCAPES}", f"state {ESCAPES}", 1, 2))
        display.note(ESCAPES)
    machine = {**MACHINE, "clip": {"text": f"clip {ESCAPES}"}}
    tables.print_report(console, {**REPORT, "verified": machine})
    assert not [character for character in file.getvalue() if not character.isprintable() and character != "\n"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan"], "[s3] bucket is missing or empty"),
        (["plan", "--config", "none.toml"], "none.toml: cannot be read"),
        (["bake"], "[s3] bucket is missing or empty"),
        (["bake", "--language", "sv"], "--language says what language --audio is in"),
        (["bake", "--audio", "none.wav"], "--audio none.wav: there is no such file"),
        (["bake", "--audio", "pyproject.toml", "--language", "Swedish"], "must be a code such as sv"),
        (["rehearse"], "needs root: run it with sudo"),
        (["shell", "latest", "--", "true"], "needs root: run it with sudo"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cli.ROOT)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert "usage: bake.py" in capsys.readouterr().err


class Memory:
    """A bucket that is a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def get(self, key: str) -> bytes | None:
        return self.objects.get(key)


def test_a_report_is_found_again_by_its_bake_and_garbage_is_not(tmp_path: Path) -> None:
    bucket: Any = Memory()
    report.save(tmp_path / "r.json", bucket, report.key_of("p", "b1"), {"schema": 1, "reference": "å"})
    assert report.load(bucket, "p/reports/b1.json") == {"schema": 1, "reference": "å"}
    assert json.loads((tmp_path / "r.json").read_text())["reference"] == "å"
    bucket.put("p/reports/b2.json", b"{")
    assert report.load(bucket, "p/reports/b2.json") is None
    assert report.load(bucket, "p/reports/b3.json") is None


def test_a_reused_image_keeps_what_its_bake_reported() -> None:
    earlier = {"bake": "b1", "baked": 1, "verified": 2, "phases": [3], "reused": False}
    made = {"bake": "b1", "baked": None, "verified": None, "phases": [4], "reused": True}
    assert report.completed(made, earlier) == {**earlier, "reused": True}
    heard = {**made, "verified": 5}
    assert report.completed(heard, earlier) == {**heard, "baked": 1}
    assert report.completed(made, {**earlier, "bake": "b0"}) == made
    assert report.completed(made, None) == made


def test_a_shell_command_is_taken_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def shell(_root: Path, image: str, argv: list[str], *, disk: bool) -> int:
        told.append((image, argv, disk))
        return 7

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("baker.target.shell", shell)
    assert cli.main(["shell", "latest", "--disk", "--", "ls", "-l", "--", "--all"]) == 7
    assert cli.main(["shell", "ami-1", "--", "salt-call", "state.apply", "--out=json"]) == 7
    assert told == [
        ("latest", ["ls", "-l", "--", "--all"], True),
        ("ami-1", ["salt-call", "state.apply", "--out=json"], False),
    ]
