"""Removes from a machine what its image must not contain, and checks that nothing of it is left."""

import contextlib
import json
import os
import pwd
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISLNK
from typing import Any

MOUNTS = Path("/proc/self/mountinfo")
PARAMETERS = Path("/run/transcribe-bake/parameters.json")
NONCE, URL = "nonce", "_url"  # of the parameters and addresses: what is secret
SCANNED = ("/etc", "/var", "/root", "/home", "/srv", "/tmp", "/opt", "/usr/local")  # noqa: S108
SKIPPED = ("venv", "models", "__pycache__")  # of the folders scanned: gigabytes that come from locks and digests
SCAN_BYTES = 16_000_000  # larger files are no place where a secret ends up by accident
SIGNED = b"X-Amz-" + b"Signature="  # in two parts, so that the scan does not find this file
Result = dict[str, Any]

__opts__: dict[str, Any]


def gone(name: str, paths: list[str], root: str = "") -> Result:
    """Remove what the patterns `paths` match, then fail if anything is left of it."""
    found = traces(paths, root)
    if not found or __opts__["test"]:
        return _result(name, found, None if found else True)
    for path in found:
        _remove(path)
    left = traces(paths, root)
    return _result(name, left, False) if left else _result(name, found, True)


def emptied(name: str, paths: list[str]) -> Result:
    """Truncate those of the files `paths` that exist."""
    full = [path for path in map(Path, paths) if path.is_file() and path.stat().st_size]
    if full and not __opts__["test"]:
        for path in full:
            with _parent(path) as folder:
                file = os.open(path.name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=folder)
                os.ftruncate(file, 0)
                os.close(file)
    return _result(name, full, None if full and __opts__["test"] else True)


def asserted(name: str, paths: list[str], empty: list[str], root: str = "") -> Result:
    """Change nothing; fail if one of `paths` exists, a file of `empty` has content, or a file holds a bake secret."""
    left = [*traces(paths, root), *(path for path in map(Path, empty) if path.is_file() and path.stat().st_size)]
    secrets = _secrets()
    holders = [path for path in _files() if _holds(path, secrets)]
    comment = "; ".join(
        f"{what}: {', '.join(map(str, found))}"
        for what, found in (("still there", left), ("a secret of the bake is in", holders))
        if found
    )
    if __opts__["test"]:
        return {"name": name, "result": None if comment else True, "changes": {}, "comment": comment}
    return {"name": name, "result": not comment, "changes": {}, "comment": comment or "nothing is left"}


def traces(paths: Iterable[str], root: str) -> list[Path]:
    """What the patterns match on this disk. Mounts are left out: they do not become part of an image."""
    homes = sorted({account.pw_dir for account in pwd.getpwall() if account.pw_uid == 0 or account.pw_uid >= 1000})
    patterns = {path.format(root=root, home=home) for path in paths for home in homes if home != "/nonexistent"}
    mounts = _mounts()
    found = {match for pattern in patterns for match in Path("/").glob(pattern.lstrip("/"))}
    return sorted(path for path in found if not _only_mounts(path, mounts))


def _mounts() -> set[str]:
    fields = (line.split(" ") for line in MOUNTS.read_text().splitlines())
    return {field[4].encode().decode("unicode_escape") for field in fields} - {"/"}


def _only_mounts(path: Path, mounts: set[str]) -> bool:
    """Whether `path` holds nothing on this disk except mount points."""
    if any(str(path) == mount or str(path).startswith(f"{mount}/") for mount in mounts):
        return True
    inner = any(mount.startswith(f"{path}/") for mount in mounts)
    return inner and path.is_dir() and all(_only_mounts(child, mounts) for child in path.iterdir())


def _remove(path: Path) -> None:
    """Remove a file or a tree, but nothing that is mounted in it.

    What cannot be removed is found by the check afterwards.
    """
    if any(mount.startswith(f"{path}/") for mount in _mounts()) and path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            if not _only_mounts(child, _mounts()):
                _remove(child)
        return
    with contextlib.suppress(OSError), _parent(path) as folder:
        try:
            os.unlink(path.name, dir_fd=folder)
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(path.name, ignore_errors=True, dir_fd=folder)


@contextlib.contextmanager
def _parent(path: Path) -> Iterator[int]:
    """The descriptor of the folder that `path` is in. Raises OSError where a link on the way is not root's own.

    Homes and the service's folders belong to others, who could put a link in place of a folder while root is at work.
    """
    folder = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for name in path.parts[1:-1]:
            follow = _roots_link(folder, name)
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW), dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _roots_link(folder: int, name: str) -> bool:
    """Whether `name` is a link that root alone can have put into `folder`."""
    around, found = os.fstat(folder), os.stat(name, dir_fd=folder, follow_symlinks=False)
    ours = {os.geteuid()}
    return S_ISLNK(found.st_mode) and {around.st_uid, found.st_uid} == ours and not around.st_mode & 0o022


def _secrets() -> list[bytes]:
    """The secrets that the launcher gave this machine, if this is a bake."""
    found = [SIGNED]
    for path in (PARAMETERS, PARAMETERS.with_name("addresses.json")):
        given = json.loads(path.read_text()) if path.exists() else {}
        found += [str(value).encode() for key, value in given.items() if value and (key == NONCE or key.endswith(URL))]
    return found


def _files() -> Iterator[Path]:
    """Every file on this disk where a secret could be."""
    mounts = _mounts()
    for top in SCANNED:
        for folder, inner, names in os.walk(top):
            inner[:] = [name for name in inner if name not in SKIPPED and f"{folder}/{name}" not in mounts]
            yield from (Path(folder, name) for name in names if f"{folder}/{name}" not in mounts)


def _holds(path: Path, secrets: list[bytes]) -> bool:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > SCAN_BYTES:
            return False
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return any(secret in content for secret in secrets)


def _result(name: str, found: list[Path], result: bool | None) -> Result:
    """`found` is what was removed, would be, or (result False) could not be."""
    comment = {True: f"{len(found)} removed", None: f"{len(found)} would be removed", False: "could not be removed"}
    changes = {str(path): "removed" for path in found} if result is not False else {}
    left = f": {', '.join(map(str, found))}" if result is False else ""
    return {"name": name, "result": result, "changes": changes, "comment": comment[result] + left}
