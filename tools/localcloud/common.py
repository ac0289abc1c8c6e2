"""What every part of the local cloud uses: its error, its folders, running a program, waiting."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PROJECT = Path(__file__).resolve().parents[2]

Result = TypeVar("Result")
Say = Callable[[str], None]
"""Receives one line of progress for the user."""


class LocalCloudError(Exception):
    """The local cloud cannot do what was asked; the message is one line for the user."""


@dataclass(frozen=True)
class Folders:
    """Where the local cloud keeps things: `state` is its own, `cache` is shared with the project's other parts."""

    state: Path
    cache: Path

    @classmethod
    def of(cls, state: Path, cache: Path | None = None) -> "Folders":
        state = state.resolve()
        return cls(state=state, cache=(cache or state.parent).resolve())

    @property
    def machines(self) -> Path:
        return self.state / "machines"

    @property
    def layers(self) -> Path:
        return self.state / "layers"

    @property
    def roots(self) -> Path:
        return self.state / "roots"

    @property
    def images(self) -> Path:
        return self.state / "images.json"

    @property
    def bucket(self) -> Path:
        return self.state / "bucket"

    @property
    def parameters(self) -> Path:
        return self.state / "parameters.json"

    @property
    def endpoint(self) -> Path:
        return self.state / "endpoint.json"

    @property
    def secret(self) -> Path:
        return self.state / "secret.json"

    @property
    def lock(self) -> Path:
        return self.state / "daemon.lock"

    @property
    def log(self) -> Path:
        return self.state / "daemon.log"

    def make_state(self) -> None:
        """Make the state folder, for its owner only. Raises LocalCloudError if it is somebody else's."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.state.chmod(0o700)
        except PermissionError:
            raise LocalCloudError(f"{self.state} belongs to root: run the same command with sudo") from None
        if self.state.stat().st_mode & 0o077:  # as on Windows' drives in WSL
            raise LocalCloudError(f"{self.state} cannot be kept from others: put the tree on a disk of Linux' own")

    def forget_endpoint(self) -> None:
        """Delete what leads clients to a local cloud that has ended."""
        self.endpoint.unlink(missing_ok=True)
        self.secret.unlink(missing_ok=True)

    @property
    def pip_cache(self) -> Path:
        return self.cache / "machine-pip"  # machines write it; `pip` beside it is this host's own

    @property
    def apt_archives(self) -> Path:
        return self.cache / "apt"


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(argv: Sequence[str | Path], *, why: str, timeout: float | None = None) -> str:
    """Run a program to its end and return what it wrote. Raises LocalCloudError: `cannot <why>: <its last line>`."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise LocalCloudError(f"cannot {why}: {command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise LocalCloudError(f"cannot {why}: {command[0]} did not end within {timeout:.0f} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LocalCloudError(f"cannot {why}: {lines[-1] if lines else f'{command[0]} ended with {done.returncode}'}")
    return done.stdout


def wait_for(attempt: Callable[[], Result], problem: str, *, seconds: float) -> Result:
    """Repeat `attempt` until it returns something true, and return that; a LocalCloudError in it means not yet.

    Raises LocalCloudError after `seconds`: the last one, or `problem`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := attempt():
                return result
            error = LocalCloudError(f"{problem} within {seconds:.0f} s")
        except LocalCloudError as failure:
            error = failure
        if time.monotonic() > deadline:
            raise error
        time.sleep(0.05)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by the JSON of `value` atomically: a reader sees the old file or the new one. Only its owner reads
    it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True)
    Path(file.name).replace(path)
