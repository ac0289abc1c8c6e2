"""The source tree: which of its files go to a machine, and whether all are there. The only module that runs git."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from baker.errors import UsageError

PAYLOAD_FOLDERS = ("salt", "service")
FOLDERS = ("cloud-init", *PAYLOAD_FOLDERS)
IGNORED_PARTS = {"__pycache__"}

# The parts without which there is no machine, whether git knows them or not.
REQUIRED = (
    "cloud-init/user-data.yaml",
    "cloud-init/bootstrap.sh",
    "salt/requirements.lock",
    "salt/driver/main.py",
    "salt/minion",
    "salt/pillar/launch.sls",
    "salt/pillar/top.sls",
    "salt/pillar/transcribe.sls",
    "salt/states/top.sls",
    "service/transcribe_optimized.py",
    "service/api_server.py",
    "service/fleet_feeder.py",
    "service/advanced_cache.py",
    "service/transcribe-api.service",
    "service/transcribe-worker.service",
    "service/transcribe-feeder.service",
    "salt/lockedvenv.py",
    "service/cpu.lock",
    "service/cuda.lock",
    "service/transcribe/__init__.py",
)


def files(root: Path, folders: tuple[str, ...]) -> list[str]:
    """Paths of every file of `folders`, relative to `root`, sorted; in a git work tree, the tracked ones only.

    A tracked file that is gone from disk is listed as well: `validate` names it.
    """
    tracked = git_list(root, "--cached", folders)
    if tracked is not None:
        return tracked
    found = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file() or path.is_symlink())
    names = (path.relative_to(root) for path in found if path.suffix != ".pyc")
    return sorted(name.as_posix() for name in names if not IGNORED_PARTS & set(name.parts))


def executable(root: Path, names: Sequence[str]) -> set[str]:
    """Which of `names` are programs: by git where it knows that the file system has no modes, as Windows' in WSL."""
    if (root / ".git").exists() and _git(root, "config", "--bool", "core.fileMode").stdout.strip() == "false":
        staged = _git(root, "ls-files", "-s", "-z", "--", *FOLDERS).stdout.split("\0")
        return {entry.partition("\t")[2] for entry in staged if entry.startswith("100755")} & set(names)
    return {name for name in names if (root / name).stat().st_mode & 0o100}


def untracked(root: Path, folders: tuple[str, ...]) -> list[str]:
    """Files that are new and not ignored: they stay out of the payload, so the launcher names them."""
    return git_list(root, "--others", folders) or []


def commit(root: Path) -> tuple[str, bool]:
    """The commit of the work tree at `root`, and whether it differs from it; without git, nothing is known."""
    if not (root / ".git").exists():
        return "", False
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except OSError:
        return "", False
    return (head.stdout.strip(), bool(changed.stdout.strip())) if head.returncode == 0 else ("", False)


def _git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    # Under sudo the tree belongs to somebody else, which git refuses without this setting.
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def git_list(root: Path, which: str, folders: tuple[str, ...]) -> list[str] | None:
    """`git ls-files` of the work tree at `root`, or None where there is none or no git."""
    if not (root / ".git").exists():
        return None
    try:
        done = _git(root, "ls-files", "-z", which, "--exclude-standard", "--", *folders)
    except OSError:
        return None
    if done.returncode != 0:
        raise UsageError(f"git cannot list the files of {root}: {done.stderr.strip().splitlines()[-1]}")
    return sorted(set(filter(None, done.stdout.split("\0"))))


def validate(root: Path, clips: Sequence[str]) -> None:
    """Raise one UsageError that names every missing or unusable file; `clips` are names in service/clips.

    A file that git tracks must be there too: removed by accident, it would be missing on the machine only.
    """
    wanted = {*REQUIRED, *(f"service/clips/{name}" for name in clips), *files(root, FOLDERS)}
    missing = sorted(name for name in wanted if not (root / name).is_file())
    links = sorted(name for name in wanted if (root / name).is_symlink())
    empty = sorted(name for name in REQUIRED if not name.endswith("__init__.py") and _is_empty(root / name))
    windows = sorted(name for name in wanted if _has_windows_lines(root / name))
    if windows:
        raise UsageError(
            f"{windows[0]} and {len(windows) - 1} more files have Windows line endings, which a machine's shell does "
            "not read: clone the tree again after `git config --global core.autocrlf false`"
        )
    findings = {"missing": missing, "symbolic links, which a payload cannot hold": links, "empty": empty}
    problems = [f"{what}: {', '.join(names)}" for what, names in findings.items() if names]
    if problems:
        raise UsageError(f"components {'; '.join(problems)} (looked in {root})")


def _has_windows_lines(path: Path) -> bool:
    data = path.read_bytes() if path.is_file() else b""
    return b"\r\n" in data and b"\0" not in data  # the latter: a recording


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0
