"""Runs salt-call and follows its log. Success is read from its JSON output, never from its exit code."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from driver import salt_output

LOG = Path("/run/transcribe-bake/salt.log")
POLL_SECONDS = 0.2  # between reads of the log
# A machine that is being baked is thrown away if it crashes, so dpkg need not wait for the disk after each file.
ENVIRONMENT = {"DPKG_FORCE": "unsafe-io", "DEBIAN_FRONTEND": "noninteractive"}


def call(*arguments: str, on_line: Callable[[str], None] = lambda line: None) -> Any:
    """What `salt-call ARGUMENTS` returns; `on_line` gets each new line of the log. Raises DriverError."""
    LOG.parent.mkdir(mode=0o700, exist_ok=True)
    command = ["salt-call", "--out=json", "--log-level=quiet", f"--log-file={LOG}", "--log-file-level=info"]
    scratch = tempfile.TemporaryFile
    with LOG.open("a+", errors="replace") as log, scratch("w+") as output, scratch("w+") as errors:
        log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **ENVIRONMENT},
        )
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                for line in _lines(log):
                    on_line(line)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        errors.seek(0)
        return salt_output.local(output.read(), errors.read())


def plan() -> salt_output.HighstatePlan:
    """What an apply would run; raises DriverError if the states do not compile."""
    return salt_output.plan(call("state.show_highstate"))


def apply(what: salt_output.HighstatePlan, on_state: Callable[[str, int, int], None], *states: str) -> dict[str, Any]:
    """Apply the highstate, or only `states`, and return the result as the report has it.

    `on_state(state, done, total)` is called as states begin. Raises DriverError.
    """
    follower = salt_output.Follower(what)

    def follow(line: str) -> None:
        if follower.read(line):
            on_state(follower.state, follower.done, what.total)

    began = time.monotonic()
    answer = call("state.apply", *states, on_line=follow)
    return salt_output.applied(answer, round(time.monotonic() - began, 3))


def _lines(log: TextIO) -> Iterator[str]:
    """The complete lines that were written since the last read."""
    while True:
        at = log.tell()
        line = log.readline()
        if not line.endswith("\n"):
            log.seek(at)
            return
        yield line.rstrip("\n")
