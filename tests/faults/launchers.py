"""Launchers as processes: forked from a warm one, with time that passes when they sleep, through the command line."""

import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from baker import cli, context
from baker.commands import bake, doctor, recover

NAP = 0.001  # seconds that a launcher really sleeps
PATIENCE = 90.0  # seconds of real time after which a launcher is hung
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Ended:
    """How a launcher ended: its exit code (negative: the signal), and what it printed."""

    code: int
    out: str
    err: str


class Time:
    """A clock that runs as fast as it is slept on."""

    def __init__(self, late: float) -> None:
        self.slept = late

    def sleep(self, seconds: float, _sleep: Callable[[float], None] = time.sleep) -> None:
        self.slept += seconds
        _sleep(min(seconds, NAP))

    def clock(self) -> float:
        return time.monotonic() + self.slept

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.slept)


@dataclass(frozen=True)
class Launcher:
    """One that runs."""

    pid: int
    files: list[Path]

    def ended(self) -> Ended:
        """Wait until it has."""
        return Ended(_wait(self.pid), *(file.read_text() for file in self.files))


def start(
    arguments: list[str], tree: Path, *, late: float = 0.0, born: Callable[[int], None] = lambda pid: None
) -> Launcher:
    """Start `bake.py` with these arguments on `tree`, `late` seconds from now; `born` is told its process id."""
    number = next(NUMBERS)
    files = [tree.parent / f"{name}-{number}" for name in ("out", "err")]
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(ready, 1)
        _be_launcher(arguments, tree, files, late)
    os.close(ready)
    born(pid)
    os.close(go)
    return Launcher(pid, files)


def _be_launcher(arguments: list[str], tree: Path, files: list[Path], late: float) -> None:
    """The child: never returns."""
    code = 70
    try:
        sys.stdout, sys.stderr = (file.open("w", encoding="utf-8") for file in files)
        passing = Time(late)
        time.sleep = passing.sleep  # type: ignore[assignment]
        opened = context.open_context

        def open_timed(*args: Any, **options: Any) -> context.BakeContext:
            made = opened(*args, **options)
            return replace(made, clock=passing.clock, now=passing.now)

        for module in (bake, doctor, recover):
            module.open_context = open_timed  # type: ignore[attr-defined]
        cli.ROOT = tree
        code = cli.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int) -> int:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the launcher hangs")
