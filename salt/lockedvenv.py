#!/usr/bin/env python3
"""Build, check and repair a virtual environment from hash-locked requirements. Standard library only.

    lockedvenv.py sync VENV LOCK... [--python PYTHON]    make VENV hold exactly what the locks pin
    lockedvenv.py check VENV LOCK...                     print what differs as JSON; exit 1 if anything does

pip can install a lock, but cannot say whether an environment still is what its lock says; that question is
what makes a Salt state idempotent. A package is right when its version is the pinned one and every file of
its RECORD is there with its recorded size and content; files that did not change since the last `sync` are not
read again. `sync` changes only what differs.
"""

import argparse
import contextlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

INSPECT = Path(__file__).resolve().with_name("venvinspect.py")
# What may be well a moment later. pip tries again to connect, but not when a download breaks off (older ones take what
# came for a wheel with another hash), and says of an index that does not answer that it has no version at all.
PASSING = re.compile(
    r"after connection broken by|Max retries exceeded|HTTP error (?:429|5\d\d)|\b(?:429|5\d\d) (?:Client|Server) Error"
    r"|ProtocolError|IncompleteRead|ReadTimeoutError|ConnectionResetError|incomplete-download"
    r"|DO NOT MATCH THE HASHES|\(from versions: none\)"
    r"|^ERROR: Exception:",  # pip itself broke: mostly on an answer that it did not expect
    re.MULTILINE,
)
PAUSES = (5, 30)  # seconds
BUILD_TOOLS = ("setuptools", "wheel")  # what a source archive needs before pip can build it
# pip's two words for it: the second one is said where its configuration also constrains torch.
CPU_BUILD_MISSING = re.compile(r"(?:No matching distribution found for|Cannot install) torch==\S*\+cpu")
LOCKS_IN_USE = "locks.json"  # in the environment
TOLD = 40  # lines of pip's output that a failure shows: whoever asks why has the console alone


class VenvError(Exception):
    """One line for the user: what failed, where, and the fix; `output` is all of pip's output."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


@dataclass(frozen=True)
class LockDifference:
    """What separates an environment from its locks, as canonical package names."""

    pinned: int = 0
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.wrong or self.damaged or self.extra)


def canonical(name: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(locks: list[Path]) -> dict[str, list[str]]:
    """Each pinned package's blocks (requirement line and hashes); one package may have one block a marker."""
    blocks: dict[str, list[str]] = {}
    for lock in locks:
        try:
            text = lock.read_text()
        except OSError as error:
            raise VenvError(f"cannot read the lock {lock}: {error.strerror}") from None
        for block in re.findall(r"^[A-Za-z0-9].*(?:\n[ \t]+.*)*", text, flags=re.MULTILINE):
            blocks.setdefault(canonical(block.split("==", 1)[0]), []).append(block)
    return blocks


def in_use(venv: Path, locks: list[Path]) -> list[Path]:
    """The locks that really apply: the CUDA lock where `sync` noted that no CPU build of torch could be had, and on
    processors other than x86, whose CPU builds are not pinned."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return cuda_instead(locks)
    with contextlib.suppress(OSError, ValueError):
        if "cuda.lock" in json.loads((venv / LOCKS_IN_USE).read_text()):
            return cuda_instead(locks)
    return locks


def cuda_instead(locks: list[Path]) -> list[Path]:
    """`locks` with the CUDA build of torch for the CPU one."""
    return [lock.with_name("cuda.lock") if lock.name == "cpu.lock" else lock for lock in locks]


def check(venv: Path, locks: list[Path]) -> LockDifference:
    """What separates `venv` from `locks`; an environment that cannot run at all misses every package."""
    blocks = pins(in_use(venv, locks))
    requirements = [block.split("\\")[0].strip() for group in blocks.values() for block in group]
    try:
        done = subprocess.run(
            [venv / "bin/python", "-I", INSPECT],
            check=False,
            input=json.dumps(requirements),
            capture_output=True,
            text=True,
        )
    except OSError:
        return LockDifference(len(blocks), sorted(blocks))
    if done.returncode != 0:
        return LockDifference(len(blocks), sorted(blocks))
    return LockDifference(**json.loads(done.stdout))


def run_pip(venv: Path, arguments: list[str], on_line: Callable[[str], None] = lambda line: None) -> str:
    """Run the environment's pip and return what it printed; raises VenvError with pip's own reason."""
    command = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            on_line(line)
    if process.returncode != 0:
        raise VenvError(f"pip could not install into {venv}: {pip_reason(lines)}", "\n".join(lines))
    return "\n".join(lines)


def pip_reason(lines: list[str]) -> str:
    """The line of pip's output that says why it failed; where pip itself broke, its exception."""
    said = [line for line in lines if line.strip()]
    errors = [line for line in said if line.startswith("ERROR:")] or said
    if not errors:
        return "no output"
    if not errors[-1].startswith("ERROR: Exception:"):
        return errors[-1]
    broke = [line for line in said[said.index(errors[-1]) + 1 :] if not line.startswith((" ", "Traceback", "WARNING"))]
    return f"pip broke: {broke[-1] if broke else 'it did not say on what'}"


def install(venv: Path, blocks: list[str], say: Callable[[str], None], *, force: bool = False) -> None:
    """Install exactly these blocks; the hashes are complete, so nothing else may be pulled in."""
    done = 0

    def progress(line: str) -> None:
        nonlocal done
        if line.startswith(("Collecting ", "Processing ")):
            done += 1
            say(f"{done}/{len(blocks)} {Path(line.split()[1]).name}")
        elif line.startswith("Installing collected"):
            say(f"{len(blocks)}/{len(blocks)} unpacking")

    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(blocks) + "\n")
        requirements.flush()
        options = ["--no-deps", "--require-hashes", "--no-build-isolation", "--no-compile"]
        options += ["--force-reinstall"] if force else []
        arguments = ["install", *options, "--requirement", requirements.name]
        for pause in PAUSES:
            try:
                run_pip(venv, arguments, progress)
                return
            except VenvError as error:
                if not PASSING.search(error.output):
                    raise
                say(f"{error}; trying again in {pause} s")
            done = 0
            time.sleep(pause)
        run_pip(venv, arguments, progress)


def runs(*command: str) -> bool:
    """Whether a command can be run and succeeds."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def create(venv: Path, python: str) -> None:
    """Make an empty environment, replacing one whose interpreter no longer runs."""
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    if not runs(python, "-m", "venv", str(venv)):
        shutil.rmtree(venv, ignore_errors=True)
        raise VenvError(f"{python} cannot make a virtual environment in {venv}: apt-get install python3 python3-venv")


def repair(venv: Path, locks: list[Path], say: Callable[[str], None]) -> None:
    """Bring an environment that runs to what `locks` pin."""
    difference = check(venv, locks)
    if difference.extra:
        run_pip(venv, ["uninstall", "--yes", *difference.extra])
    blocks = pins(locks)
    lacking = difference.missing + difference.wrong
    first = [name for name in BUILD_TOOLS if name in lacking]
    if first:
        install(venv, [block for name in first for block in blocks[name]], say)
    rest = [block for name in lacking if name not in first for block in blocks[name]]
    if rest:
        install(venv, rest, say)
    if difference.damaged:
        install(venv, [block for name in difference.damaged for block in blocks[name]], say, force=True)
    if lacking or difference.damaged:
        say("compiling")
        # Some packages carry files for other Pythons, which cannot be compiled: the exit code says nothing.
        runs(str(venv / "bin/python"), "-m", "compileall", "-q", "-j", "0", str(venv / "lib"))


def sync(
    venv: Path, locks: list[Path], python: str = "python3", say: Callable[[str], None] = lambda m: None
) -> LockDifference:
    """Make `venv` hold exactly what `locks` pin; returns what differed before.

    Where `cpu.lock` is asked for and pip's sources have no CPU build of torch (the public index alone does not
    carry one), the `cuda.lock` beside it is used: it runs without a GPU as well, at several GB more.
    Raises VenvError when pip fails or the result is still not what the locks say.
    """
    before = check(venv, locks)
    if not before:
        return before
    if not runs(str(venv / "bin/python"), "-I", "-c", "import pip"):
        create(venv, python)
    locks = in_use(venv, locks)
    try:
        repair(venv, locks, say)
    except VenvError as error:
        if PASSING.search(error.output) or not CPU_BUILD_MISSING.search(error.output):
            raise
        say("no CPU build of torch in pip's sources: taking the CUDA build, several GB")
        locks = cuda_instead(locks)
        repair(venv, locks, say)
    (venv / LOCKS_IN_USE).write_text(json.dumps([lock.name for lock in locks]) + "\n")
    after = check(venv, locks)
    if after:
        raise VenvError(f"{venv} still differs from its lock: {json.dumps(asdict(after))}; remove it and run again")
    return before


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, check and repair a virtual environment from hash locks.")
    parser.add_argument("action", choices=("sync", "check"))
    parser.add_argument("venv", type=Path)
    parser.add_argument("locks", type=Path, nargs="+")
    parser.add_argument("--python", default="python3")
    options = parser.parse_args()
    try:
        if options.action == "check":
            difference = check(options.venv, options.locks)
            print(json.dumps(asdict(difference)))
            return int(bool(difference))
        difference = sync(options.venv, options.locks, options.python, lambda m: print(m, file=sys.stderr, flush=True))
        print(json.dumps(asdict(difference)))
    except VenvError as error:
        print(*error.output.splitlines()[-TOLD:], f"error: {error}", sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
