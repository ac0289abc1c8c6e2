"""Runs a long command so that its progress is in the log, and so that no two of a kind ever run at once."""

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

    What it writes to stderr is logged line by line: whoever follows the log sees how far it is. The command
    inherits the lock, so that if this apply is killed the next one waits for what the killed one left running.
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
