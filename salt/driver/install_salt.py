"""Installs Salt on a plain machine, before the first state can be applied."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from driver.parameters import DriverError

VENV = Path("/opt/salt/venv")
LINK = Path("/usr/local/bin/salt-call")
MINION = Path("/etc/salt/minion")
APT = ["apt-get", "--quiet", "--yes", "--option=DPkg::Lock::Timeout=300"]


def install_salt(source: Path, say: Callable[[str], None]) -> None:
    """Make `salt-call state.apply` work, with Salt as its lock pins it. Raises DriverError."""
    if run([_python(), "-c", "import ensurepip, venv"], check=False):
        say("python3-venv")
        run([*APT, "update"])
        run([*APT, "install", "--no-install-recommends", "python3-venv"])
    tool = str(source / "salt/lockedvenv.py")
    run([_python(), tool, "sync", str(VENV), str(source / "salt/requirements.lock")], say)
    MINION.parent.mkdir(exist_ok=True)
    shutil.copyfile(source / "salt/minion", MINION)
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(VENV / "bin/salt-call")


def run(command: list[str], say: Callable[[str], None] = lambda line: None, *, check: bool = True) -> int:
    """Run a command and pass each line of its stderr to `say`; returns its exit code.

    Raises DriverError with its last line if it fails and `check` is true.
    """
    last = ""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            last = line.strip() or last
            print(line, end="", flush=True)
            say(last)
    if check and process.returncode != 0:
        raise DriverError(f"{command[0]} {command[1]} ended with {process.returncode}: {last}")
    return process.returncode


def _python() -> str:
    """The system's own Python, which also runs this driver."""
    found = shutil.which("python3")
    if found is None:
        raise DriverError("python3 is not installed")
    return found
