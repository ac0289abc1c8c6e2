"""Runs long commands, one of a kind at a time, with their progress in Salt's log."""

import fcntl
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
LOCKS = Path("/run")
TAIL = 40  # lines of output kept for an error


def locked(kind: str, command: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `command`; returns its `code`, its whole `stdout` and the last lines of its `stderr`.

    Its stderr is logged line by line, so that progress can be followed in the log. The command inherits the lock:
    if this apply is killed, the next one waits until what the killed one started has ended.
    """
    with (LOCKS / f"transcribe-{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[lock.fileno()],
            env={**os.environ, **(environment or {})},
        )
        lines = []
        with process:
            assert process.stderr is not None
            assert process.stdout is not None
            for line in process.stderr:
                lines.append(line.rstrip())
                log.info("progress of %s: %s", kind, lines[-1])
            stdout = process.stdout.read()
    return {"code": process.returncode, "stdout": stdout, "stderr": "\n".join(lines[-TAIL:])}
