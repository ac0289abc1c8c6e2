"""API keys: a file of names and digests, read again when it changes.

A line is `NAME SHA256`, made by `tools/bake.py new-key NAME`. Lines that cannot be read are skipped and logged by
number; the others count. A machine that checks itself has a temporary key, in a file of its own, `NAME SHA256 END`.
"""

import contextlib
import hashlib
import hmac
import os
import stat
import threading
import time
from pathlib import Path

from transcribe import logs
from transcribe.config import AuthConfig
from transcribe.keys import LINE

CHECK_SECONDS = 1.0
TEMPORARY_SECONDS = 900.0  # a temporary key that claims to last longer is not taken


class Keys:
    """The keys of one file, and the temporary ones of a folder. Without a file everyone is the same client, whose id
    is ''."""

    def __init__(self, path: Path | None, temporary: Path | None = None) -> None:
        self.path = path
        self._temporary_folder = temporary
        self._temporary: list[tuple[str, bytes, float]] = []
        self._lock = threading.Lock()
        self._checked = 0.0
        self._mark: tuple[int, int, int] | None = None
        self._digests: dict[str, bytes] = {}

    @classmethod
    def of(cls, config: AuthConfig) -> "Keys":
        """The keys that the configuration names."""
        return cls(Path(config.keys_file) if config.keys_file else None, Path(config.temporary_keys))

    @property
    def on(self) -> bool:
        """Whether a key is required."""
        return self.path is not None

    @property
    def several(self) -> bool:
        """Whether the file has more than one key."""
        with self._lock:
            return len(self._digests) > 1

    def identify(self, authorization: str | None) -> str | None:
        """The id of the key in an Authorization header, '' if none are used, None if it is unknown.

        The id combines name and digest, so that a new key with an old name cannot see the old key's jobs.
        """
        if self.path is None:
            return ""
        scheme, _, key = (authorization or "").partition(" ")
        presented = hashlib.sha256(key.strip().encode()).digest()
        found = None
        for name, digest in self._current():  # all of them, each in constant time
            if hmac.compare_digest(presented, digest):
                found = f"{name}:{digest.hex()[:16]}"
        return found if scheme.lower() == "bearer" else None

    def _current(self) -> list[tuple[str, bytes]]:
        with self._lock:
            if time.monotonic() - self._checked >= CHECK_SECONDS:
                self._checked = time.monotonic()
                self._reload()
                self._temporary = read_temporary(self._temporary_folder)
            now = time.time()
            valid = [(name, digest) for name, digest, end in self._temporary if now < end < now + TEMPORARY_SECONDS]
            return [*self._digests.items(), *valid]

    def _reload(self) -> None:
        assert self.path is not None
        try:
            status = self.path.stat()
            mark = (status.st_mtime_ns, status.st_size, status.st_ino)
            if mark != self._mark:
                self._digests = read(self.path)
                self._mark = mark
                logs.event("keys_read", keys=len(self._digests))
        except (OSError, UnicodeError) as error:
            if self._mark is not None or self._digests:
                logs.failure("keys_unreadable", error)
            self._digests, self._mark = {}, None  # fail closed: the keys may have been revoked


def read(path: Path) -> dict[str, bytes]:
    """Names and digests. Raises OSError or UnicodeError."""
    digests: dict[str, bytes] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        stripped = line.partition("#")[0].strip()
        match = LINE.fullmatch(stripped)
        if match and match["name"] not in digests:
            digests[match["name"]] = bytes.fromhex(match["digest"])
        elif stripped:
            logs.warning("keys_line_skipped", line=number)
    return digests


def read_temporary(folder: Path | None) -> list[tuple[str, bytes, float]]:
    """Name, digest and end (Unix time, seconds) of each temporary key; none where the folder cannot be read. A file
    that someone other than root (or this process's user) could have written does not count."""
    found = []
    try:
        paths = sorted(folder.iterdir()) if folder else []
    except OSError:
        return []
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # it was removed, or is being written
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                continue
            line, end = path.read_text(encoding="ascii").strip().rsplit(" ", 1)
            if match := LINE.fullmatch(line):
                found.append((match["name"], bytes.fromhex(match["digest"]), float(end)))
    return found
