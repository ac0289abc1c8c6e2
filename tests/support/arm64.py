"""64-bit ARMs on a computer that is none: Debian's Python, the service's packages, and QEMU as the processor."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lockedvenv import pins

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "arm64"
LOCKS = (ROOT / "service" / "cpu.lock", ROOT / "tests" / "emulated" / "arm64.lock")
PYTHON = "3.11"  # of SUITE
SUITE = "bookworm"
PACKAGES = ("python3.11", "libstdc++6", "zlib1g", "libssl3", "libffi8", "libsqlite3-0", "libbz2-1.0", "liblzma5")
X86_ONLY = "; platform_machine == 'x86_64' "  # pip judges a marker by the processor that it runs on
GLIBCS = ("2_28", "2_27", "2_17")  # as wheels name the oldest that they run with


class Processor(NamedTuple):
    """As QEMU and LLVM call it; LLVM asks the computer, not the emulator, what a processor can do."""

    name: str
    features: str


PROCESSORS = {  # by the instructions that int8 is multiplied by
    "neon": Processor("a64fx", ""),
    "dotprod": Processor("neoverse-n1", "+dotprod"),
    "i8mm": Processor("max", "+dotprod,+i8mm"),
}


def kernels(instructions: str) -> Path:
    """Where the compiled kernels for a processor are kept: compiling them takes it two minutes."""
    return FOLDER / instructions / "prepared"


def prepare() -> None:
    """Make the system and its packages, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _make("system", _unpack)
        _make("packages", _install)


def run(instructions: str, *arguments: str, seconds: int = 1500) -> str:
    """What Python says on that processor. Raises AssertionError with what it said when it fails."""
    prepare()
    processor, system = PROCESSORS[instructions], FOLDER / "system"
    pure = sysconfig.get_path("purelib")  # pytest
    folders = (FOLDER / "packages", ROOT / "service", ROOT / "tests", pure)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they have parts for this processor
        "NUMBA_CPU_FEATURES": processor.features,
        "KERNELS": str(kernels(instructions)),
    }
    emulator = ["qemu-aarch64", "-cpu", processor.name, "-L", str(system), str(system / f"usr/bin/python{PYTHON}")]
    done = subprocess.run(
        [*emulator, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def _make(name: str, make: Callable[[Path], None]) -> None:
    stamp = f"{SUITE} {PACKAGES} {''.join(lock.read_text() for lock in LOCKS)}"
    target, made = FOLDER / name, FOLDER / f"{name}.made"
    if made.is_file() and made.read_text() == stamp:
        return
    made.unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    make(target)
    made.write_text(stamp)


def _unpack(target: Path) -> None:
    included = f"--include={','.join(PACKAGES)}"
    _call(["mmdebstrap", "--variant=extract", "--architectures=arm64", included, SUITE, str(target)])


def _install(target: Path) -> None:
    packages = {**pins([LOCKS[0]]), **pins([LOCKS[1]])}
    blocks = [block for several in packages.values() for block in several if X86_ONLY not in block]
    wanted = FOLDER / "requirements.txt"
    wanted.write_text("\n".join(blocks) + "\n")
    platforms = [f"--platform=manylinux_{glibc}_aarch64" for glibc in GLIBCS]
    options = ["--only-binary=:all:", "--no-deps", "--no-compile", "--require-hashes", f"--python-version={PYTHON}"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _call([*pip, *options, *platforms, f"--target={target}", f"--requirement={wanted}"])


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {(done.stderr or done.stdout)[-2000:]}"
