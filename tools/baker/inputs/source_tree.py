"""The source tree: which files of it go to a machine. The only module that asks git."""

import subprocess
from pathlib import Path

from baker.errors import UsageError

PAYLOAD_FOLDERS = ("salt", "service")
IGNORED_PARTS = {"__pycache__"}


def files(root: Path, folders: tuple[str, ...]) -> list[str]:
    """Paths of every file of `folders`, relative to `root`, sorted; in a git work tree, the tracked ones only.

    A tracked file that is gone from disk is listed as well: naming it is component validation's task.
    """
    tracked = git_list(root, "--cached", folders)
    if tracked is not None:
        return tracked
    found = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file() or path.is_symlink())
    names = (path.relative_to(root) for path in found if path.suffix != ".pyc")
    return sorted(name.as_posix() for name in names if not IGNORED_PARTS & set(name.parts))


def untracked(root: Path, folders: tuple[str, ...]) -> list[str]:
    """Files that are new and not ignored: they stay out of the payload, which a person should be told."""
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
    # Under sudo the tree belongs to somebody else, which git refuses unless told that it is meant.
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
