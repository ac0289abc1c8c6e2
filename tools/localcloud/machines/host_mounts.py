"""Gives machines this host's package indexes, proxies and caches, by bind mounts.

Nothing is copied, so that an image contains none of it.
"""

import ast
import os
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localcloud.common import Folders, run

RUN = "/run/local-cloud"  # on a machine's tmpfs
HANDED_ON = (
    "extra-index-url",
    "find-links",
    "index-url",
    "no-index",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
)
LOCAL = ("extra-index-url", "find-links", "index-url")
PCI = "/sys/bus/pci/devices"
RESOLVER = "nameserver 10.0.2.3\n"  # slirp4netns' own, which asks the host's


@dataclass(frozen=True)
class Bind:
    """A file or folder of the host as a machine sees it."""

    source: Path
    target: str
    writable: bool = False

    def option(self) -> str:
        def escaped(path: object) -> str:
            return str(path).replace("\\", "\\\\").replace(":", "\\:")

        return f"--bind{'' if self.writable else '-ro'}={escaped(self.source)}:{escaped(self.target)}"


def pip_settings(listing: str) -> dict[str, str]:
    """The settings in what `pip config list` prints; the environment's win over the files', as in pip."""
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, _, key = name.rpartition(".")
        rank = {"global": 1, "install": 2, ":env:": 3}.get(section)
        if separator and rank:
            key = "timeout" if key == "default-timeout" else key
            found[key] = max(found.get(key, (0, "")), (rank, str(ast.literal_eval(value))))
    return {key: value for key, (_, value) in found.items()}


def host_pip() -> dict[str, str]:
    """This host's pip settings; empty when pip cannot list any."""
    asked = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return pip_settings(done.stdout) if done.returncode == 0 else {}


def local_folders(settings: Mapping[str, str]) -> Iterator[Path]:
    """The folders of this host that pip's settings point to, which machines see at the same paths."""
    for value in " ".join(settings.get(key, "") for key in LOCAL).split():
        parts = urlsplit(value)
        path = Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
        if path and path.is_absolute() and path.exists():
            # An index's pages point at files beside it: .../simple/NAME/ links to ../../files/.
            yield path.parent if path.name == "simple" else path


def pip_conf(settings: Mapping[str, str]) -> str:
    """A machine's /etc/pip.conf."""
    lines = ["[global]", f"cache-dir = {RUN}/pip-cache", "disable-pip-version-check = true"]
    lines += [f"{key} = {' '.join(settings[key].split())}" for key in HANDED_ON if settings.get(key)]
    if settings.get("cert"):
        lines.append(f"cert = {RUN}/ca.crt")
    return "\n".join(lines) + "\n"


def apt_conf() -> str:
    """The host's proxies for apt."""
    listing = run(["apt-config", "dump", "Acquire"], why="read apt's configuration") if _has_apt() else ""
    return "".join(line + "\n" for line in listing.splitlines() if "::Proxy" in line.split(" ")[0] and '""' not in line)


def _has_apt() -> bool:
    return Path("/usr/bin/apt-config").exists()


def outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lie below another of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def binds(folder: Path, folders: Folders) -> list[Bind]:
    """Write a machine's configuration into its own `folder`, and return what to mount where."""
    settings = host_pip()
    folders.pip_cache.mkdir(parents=True, exist_ok=True)
    (folder / "apt").mkdir(exist_ok=True)
    (folder / "resolv.conf").write_text(RESOLVER)
    (folder / "pip.conf").write_text(pip_conf(settings))
    found = [
        Bind(folder / "resolv.conf", "/etc/resolv.conf"),
        Bind(folder / "pip.conf", "/etc/pip.conf"),
        Bind(folders.pip_cache, f"{RUN}/pip-cache", writable=True),
        Bind(folder / "apt", "/var/cache/apt/archives", writable=True),
    ]
    if Path(PCI).is_dir():  # a GPU of this host is not the machine's, whose /dev has none of its nodes
        (folder / "pci").mkdir(exist_ok=True)
        found.append(Bind(folder / "pci", PCI))
    if settings.get("cert"):
        found.append(Bind(Path(settings["cert"]).resolve(), f"{RUN}/ca.crt"))
    apt = apt_conf()
    if apt:
        (folder / "apt.conf").write_text(apt)
        found.append(Bind(folder / "apt.conf", "/etc/apt/apt.conf.d/95-local-cloud"))
    return found + [Bind(path, str(path)) for path in outermost(local_folders(settings))]


def lend_archives(folder: Path, folders: Folders) -> None:
    """Link the cached apt archives into a machine's own folder, so that `apt-get clean` does not empty the cache."""
    folders.apt_archives.mkdir(parents=True, exist_ok=True)
    for path in folders.apt_archives.glob("*.deb"):
        with suppress(FileExistsError):
            os.link(path, folder / "apt" / path.name)


def keep_archives(folder: Path, folders: Folders) -> None:
    """Copy what a machine has downloaded since into the cache: as files of this host's own, which it cannot change."""
    try:
        archives = [path for path in (folder / "apt").iterdir() if path.suffix == ".deb"]
    except FileNotFoundError:
        return  # the machine has been terminated meanwhile
    for path in archives:
        kept = folders.apt_archives / path.name
        if kept.exists():
            continue
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # apt-get clean was quicker, or it is a link of the machine's
        with os.fdopen(handle, "rb") as file:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                making = kept.with_suffix(f".{secrets.token_hex(4)}")
                with making.open("xb") as copy:
                    shutil.copyfileobj(file, copy)
                making.replace(kept)
