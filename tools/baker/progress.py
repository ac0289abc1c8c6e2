"""What a person sees while a bake runs: one bar by phase and state on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

TITLE_WIDTH = 34
DETAIL_WIDTH = 36
PIPE_WIDTH = 120
QUIET_SECONDS = 10.0  # between plain lines that only detail a state


@dataclass(frozen=True)
class Step:
    """How far the machine is: the phase it is in, the state it runs, states done and in all (0: not known)."""

    phase: str
    state: str = ""
    done: int = 0
    total: int = 0


def open_console() -> Console:
    """Standard output; a log file or a pipe has no width of its own, and gets one that tables fit in."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


class Display:
    """Times the phases of a bake and draws them. `phases` holds (name, seconds) of those that ended."""

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or open_console()
        self.phases: list[tuple[str, float]] = []
        self._clock = clock
        self._live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._step: Step | None = None
        self._step_began = self._told = 0.0

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """One timed phase; a failure in it is marked on its line."""
        began = self._clock()
        self._begin(title)
        try:
            yield
        except BaseException:
            self._end(title, self._clock() - began, ok=False)
            raise
        self.phases.append((title, self._clock() - began))
        self._end(title, self._clock() - began, ok=True)

    def step(self, step: Step) -> None:
        """The machine's own progress inside the present phase; a phase of its that is over gets its line."""
        if step == self._step:
            return
        before, self._step = self._step, step
        if before is None or before.phase != step.phase:
            self._close_step(before)
            self._step_began = self._clock()
            if not self._live:
                self._line(f"    {step.phase}")
        if self._bar is not None and self._task is not None:
            count = f"{step.done}/{step.total}" if step.total else ""
            description = f"{step.phase}  [dim]{escape(step.state[:DETAIL_WIDTH])}[/dim]"
            self._bar.update(
                self._task, description=description, completed=step.done, total=step.total or None, count=count
            )
        elif step.state:
            self._tell(step, before)

    def _tell(self, step: Step, before: Step | None) -> None:
        """A plain line for a new state, and now and then for what the present one does."""
        new = bool(step.total) and (before is None or step.state.split()[0] != before.state.partition(" ")[0])
        if new or self._clock() - self._told > QUIET_SECONDS:
            self._told = self._clock()
            self._line(f"      {f'{step.done}/{step.total} ' if step.total else ''}{step.state}")

    def note(self, text: str, style: str = "") -> None:
        """A line that stays."""
        (self._bar.console if self._bar else self.console).print(
            text, style=style or None, markup=False, soft_wrap=True
        )

    def _begin(self, title: str) -> None:
        self._step = None
        if not self._live:
            self._line(f"{title} ...")
            return
        self._bar = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=None, count="")
        self._bar.start()

    def _end(self, title: str, seconds: float, *, ok: bool) -> None:
        self._close_step(self._step, ok=ok)
        self._step = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        mark, style = ("✓", "green") if ok else ("✗", "red")
        self.console.print(f"[{style}]{mark}[/] {title:<{TITLE_WIDTH}} [dim]{seconds:7.1f} s[/dim]")

    def _close_step(self, step: Step | None, *, ok: bool = True) -> None:
        if step is None:
            return
        mark, style = ("✓", "green") if ok else ("✗", "red")
        states = f"  {step.total} states" if step.total and ok else ""
        where = f"  at {escape(step.state)}" if step.state and not ok else ""
        seconds = self._clock() - self._step_began
        out = self._bar.console if self._bar else self.console
        name = f"{step.phase:<{TITLE_WIDTH - 2}}"
        out.print(f"  [{style}]{mark}[/] {name} [dim]{seconds:7.1f} s{states}{where}[/dim]")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)
        sys.stdout.flush()
