"""Progress of a bake: a bar for each phase on a terminal, plain lines elsewhere, and events for programs."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from baker.display.estimates import Estimate, MachineStep, Moment
from baker.display.literal import literal, plain

TITLE_WIDTH = 34
DETAIL_WIDTH = 36  # at most: on 80 columns it makes room for the rest
REST_WIDTH = 62  # of a line with a bar
PIPE_WIDTH = 120
QUIET_SECONDS = 10.0  # between plain lines that only detail a state

Emit = Callable[..., None]  # takes the kind of an event, and its fields by name


class Event(StrEnum):
    """The kinds of events for programs; Event.schema.json beside this file describes their fields."""

    PHASE = "phase"
    STEP = "step"
    NOTE = "note"
    BAKE = "bake"
    VERDICT = "verdict"
    IMAGE = "image"
    END = "end"


def no_events(event: Event, **fields: object) -> None:
    """For a person only."""


def events_to(stream: TextIO) -> Emit:
    """Writes each event to `stream` at once, as one JSON object a line."""

    def emit(event: Event, **fields: object) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        stream.write(json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False) + "\n")
        stream.flush()

    return emit


def open_console(*, errors: bool = False) -> Console:
    """Standard output, or standard error; a log file or a pipe has no width, and gets one that tables fit in."""
    console = Console(highlight=False, stderr=errors)
    return console if console.is_terminal else Console(highlight=False, stderr=errors, width=PIPE_WIDTH)


class TimeLeft(ProgressColumn):
    """The time left of the whole bake, which rich's own columns cannot know."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__()
        self._text = text

    def render(self, task: Task) -> Text:
        return Text(self._text(), style="dim")


class Display:
    """Times the phases of a bake and draws them. `phases` holds (name, seconds) of those that ended.

    `emit` gets every event, for programs. `estimate` holds the durations of the last bake, once they are loaded.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        emit: Emit = no_events,
    ) -> None:
        self.console = console or open_console()
        self.phases: list[tuple[str, float]] = []
        self.emit = emit
        self.estimate = Estimate()
        self._clock = clock
        self._live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._step: MachineStep | None = None
        self._title = ""
        self._began = self._step_began = self._state_began = self._last_line = 0.0

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """One timed phase; a failure in it is marked on its line."""
        self._begin(title)
        began = self._began
        try:
            yield
        except BaseException:
            self._end(title, self._clock() - began, ok=False)
            raise
        self.phases.append((title, self._clock() - began))
        self._end(title, self._clock() - began, ok=True)

    def step(self, step: MachineStep) -> None:
        """The machine's progress inside the present phase. A phase of the machine that has ended gets a line."""
        if step == self._step:
            return
        before, self._step = self._step, step
        if before is None or before.id != step.id:
            self._state_began = self._clock()
        if before is None or before.phase != step.phase:
            self._close_step(before)
            self._step_began = self._clock()
            if not self._live:
                self._line(f"    {step.phase}")
        fields = {"phase": step.phase, "state": step.state, "done": step.done, "total": step.total}
        self.emit(Event.STEP, **fields, seconds_left=self._left())
        if self._bar is not None and self._task is not None:
            count = f"{step.done}/{step.total}" if step.total else ""
            room = max(min(DETAIL_WIDTH, self.console.width - REST_WIDTH), 8)
            name, detail = plain(step.phase), plain(step.state[:room])
            done, total = step.done, step.total or None
            self._bar.update(self._task, description=name, detail=detail, completed=done, total=total, count=count)
        elif step.state:
            self._print_plainly(step, before)

    def _print_plainly(self, step: MachineStep, before: MachineStep | None) -> None:
        """A plain line for a new state, and now and then for what the present one does."""
        new = bool(step.total) and (before is None or step.id != before.id)
        if new or self._clock() - self._last_line > QUIET_SECONDS:
            self._last_line = self._clock()
            self._line(f"      {f'{step.done}/{step.total} ' if step.total else ''}{step.state}{self._in_brackets()}")

    def note(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self.emit(Event.NOTE, text=text.strip())
        (self._bar.console if self._bar else self.console).print(literal(text), style=style or None, soft_wrap=True)

    def _begin(self, title: str) -> None:
        self._step, self._title, self._began = None, title, self._clock()
        self.emit(Event.PHASE, phase=title, status="begun", seconds_left=self._left())
        if not self._live:
            self._line(f"{title} ...{self._in_brackets()}")
            return
        self._bar = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeLeft(self._words_left),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(plain(title), total=None, detail="", count="")
        self._bar.start()

    def _end(self, title: str, seconds: float, *, ok: bool) -> None:
        self._close_step(self._step, ok=ok)
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        self._step = None
        self.console.print(_line_of(ok, f" {title:<{TITLE_WIDTH}} ", f"{seconds:7.1f} s"))
        status = "done" if ok else "failed"
        left = self.estimate.left(Moment(title, float("inf")))
        self.emit(Event.PHASE, phase=title, status=status, seconds=round(seconds, 3), seconds_left=left)

    def _close_step(self, step: MachineStep | None, *, ok: bool = True) -> None:
        if step is None:
            return
        states = f"  {step.total} states" if step.total and ok else ""
        where = f"  at {step.state}" if step.state and not ok else ""
        seconds = self._clock() - self._step_began
        out = self._bar.console if self._bar else self.console
        name = f"{step.phase:<{TITLE_WIDTH - 2}}"
        out.print("  ", _line_of(ok, f" {name} ", f"{seconds:7.1f} s{states}{where}"), sep="")

    def _left(self) -> float | None:
        """Seconds to the end, as the last bake took; None: not known."""
        now = self._clock()
        where = Moment(self._title, now - self._began, self._step, now - self._step_began, now - self._state_began)
        left = self.estimate.left(where)
        return None if left is None else round(left, 1)

    def _words_left(self) -> str:
        left = self._left()
        return "" if left is None else f"about {int(left) // 60}:{int(left) % 60:02d} left"

    def _in_brackets(self) -> str:
        words = self._words_left()
        return f"  ({words})" if words else ""

    def _line(self, text: str) -> None:
        self.console.print(literal(text), soft_wrap=True)
        self.console.file.flush()


def _line_of(ok: bool, name: str, detail: str) -> Text:
    """A phase that has ended."""
    return Text.assemble(("✓", "green") if ok else ("✗", "red"), literal(name), literal(detail, "dim"))
