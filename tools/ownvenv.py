"""Gives a program of this folder a virtual environment of its own, and goes on inside it. Standard library only."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
STAMP = "lock.sha256"  # written last, so that an interrupted installation is never taken for a finished one
EXIT_FAILED = 1


def enter(program: str, name: str, lock: Path) -> None:
    """Run `program` (a file) in the environment `name`, built from `lock` if need be; returns when already there.

    The fast path reads one stamp: no package is looked at. Failures end the program with one line.
    """
    venv = CACHE / "venvs" / name
    if Path(sys.prefix).resolve() == venv.resolve():
        return
    if sys.version_info < (3, 11):  # noqa: UP036  the point is to say so on an older one
        fail(program, f"needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    stamp = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if not (venv / STAMP).is_file() or (venv / STAMP).read_text() != stamp:
        build(program, venv, lock)
        (venv / STAMP).write_text(stamp)
    python = str(venv / "bin/python")
    os.execv(python, [python, program, *sys.argv[1:]])  # noqa: S606  there is no shell


def build(program: str, venv: Path, lock: Path) -> None:
    """Make the environment hold what the lock pins, saying so."""
    sys.path.insert(0, str(ROOT / "salt"))
    from lockedvenv import VenvError, sync

    print(f"setting up {venv.relative_to(ROOT)} from {lock.relative_to(ROOT)}, once", file=sys.stderr, flush=True)
    if not has_venv_module():
        install_venv_module(program)
    try:
        make_folders(venv.parent)
        say = live_line()
        sync(venv, [lock], sys.executable, say)
        say("ready\n")
    except VenvError as error:
        fail(program, str(error))
    except PermissionError as error:
        fail(program, f"{error.filename} belongs to somebody else: run it with sudo, or give the folder to yourself")


def make_folders(folder: Path) -> None:
    """Make the cache's folders; under sudo they belong to who called it, who will want to use them without."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and "SUDO_UID" in os.environ:
        for path in (CACHE, folder):
            os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "not writable", str(folder))


def has_venv_module() -> bool:
    """Whether this Python can make environments; Debian and Ubuntu leave that out."""
    try:
        import ensurepip
        import venv
    except ImportError:
        return False
    return bool(ensurepip and venv)


def install_venv_module(program: str) -> None:
    """Add what Debian and Ubuntu leave out, where this may be done."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(program, "this Python cannot make virtual environments; run: sudo apt-get install python3-venv")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "python3-venv"]):
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            fail(program, f"{' '.join(command)} failed: {reason}")


def live_line() -> Callable[[str], None]:
    """Prints messages over one another on a terminal; elsewhere nothing, since thousands would follow."""
    if not sys.stderr.isatty():
        return lambda message: None
    return lambda message: print(f"\r\033[K  {message[:100]}", end="", file=sys.stderr, flush=True)


def fail(program: str, reason: str) -> NoReturn:
    """End with one line."""
    print(f"{Path(program).stem}: {reason}", file=sys.stderr)
    sys.exit(EXIT_FAILED)
