"""The launcher's own computer need not be a Linux one: macOS has no real-time signals and no /proc."""

import subprocess
import sys

from support.project_tree import PROJECT

MACOS = """
import signal, sys
for name in [name for name in vars(signal) if name.startswith("SIGRT")]:
    delattr(signal, name)
sys.path[:0] = ["tools", "service"]
from pathlib import Path
from baker.recovery import lease
lease.PROC = Path("/no/proc")
from baker import cli
assert not lease.process(1).dead
cli.parse(["plan"])
print("ok")
"""


def test_the_launcher_loads_on_macos() -> None:
    done = subprocess.run([sys.executable, "-c", MACOS], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr
