"""The disks of the source images: systems like those of real clouds, each built once by mmdebstrap."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from localcloud.common import Folders, LocalCloudError, Say, run
from localcloud.machines.supervisor import USER_COUNT, USERS

PACKAGES = (
    "ca-certificates",
    "cloud-init",
    "curl",
    "dbus",
    "iproute2",
    "libpam-systemd",
    "openssh-server",
    "procps",
    "python3",
    "python3-venv",
    "sudo",
    "systemd-sysv",
)
# As on cloud images: data source and locale are set, host keys and machine-id are not. /etc/pip.conf and
# /etc/resolv.conf are empty files on the disk: the host's are mounted over them while a machine runs.
FINISH = (
    "rm -f $1/etc/ssh/ssh_host_* $1/etc/apt/apt.conf.d/99mmdebstrap $1/var/lib/dbus/machine-id",
    "rm -f $1/etc/hostname",
    ": > $1/etc/machine-id",
    ": > $1/etc/resolv.conf",
    ": > $1/etc/pip.conf",
    r"printf 'datasource_list: [ NoCloud, None ]\nlocale: C.UTF-8\n' > $1/etc/cloud/cloud.cfg.d/90_image.cfg",
)
UBUNTU_LIKE = ("cron", "needrestart", "rsyslog", "unattended-upgrades", *(p for p in PACKAGES if p != "python3-venv"))

# systemd-nspawn changes owners by itself, with what belongs to that: set-uid bits and access control lists.
OWN = ["unshare", "--mount", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"]
OWN += ["--console=pipe", "--as-pid2", f"--private-users={USERS}:{USER_COUNT}", "--private-users-ownership=chown"]
OWNED = "owned-"  # before the name of a root whose owner is the machines', not this host's
FILES = Path(__file__).with_name("bases")


@dataclass(frozen=True)
class Base:
    """A system that a rehearsal starts from.

    `sources` are what the root is installed from, by default all of the suite. Files in bases/NAME are laid over it.
    """

    name: str
    image_name: str  # begins as that of the real image does
    system: str
    python: str  # the version that the system brings, such as 3.11
    suite: str
    packages: tuple[str, ...] = PACKAGES
    sources: tuple[str, ...] = ()
    finish: tuple[str, ...] = FINISH

    @property
    def files(self) -> Path:
        return FILES / self.name

    def key(self) -> str:
        """A digest of what the root file system is built from; the source image's id is derived from it."""
        parts: list[object] = [self.suite, self.packages, self.finish, USERS]
        laid = {str(p.relative_to(self.files)): p.read_text() for p in sorted(self.files.rglob("*")) if p.is_file()}
        if self.sources or laid:
            parts += [self.sources, laid]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def command(self, target: Path) -> list[str]:
        """The command that builds the root file system."""
        command = ["mmdebstrap", "--mode=root", "--variant=important", f"--include={','.join(self.packages)}"]
        if self.files.is_dir():
            command.append(f"--customize-hook=cp -rT --no-preserve=ownership '{self.files}' \"$1\"")
        command += [f"--customize-hook={hook}" for hook in self.finish]
        return [*command, self.suite, str(target), *self.sources]


BOOKWORM = Base("bookworm", "debian-12-amd64", "Debian 12", "3.11", "bookworm")
TRIXIE = Base("trixie", "debian-13-amd64", "Debian 13", "3.13", "trixie")
# Installed without security updates, which the first boot then installs: libssl and Python among them.
UBUNTU = Base(
    "ubuntu-like",
    "ubuntu-like-debian-12-amd64",
    "Debian 12 that behaves as Ubuntu does at boot",
    "3.11",
    "bookworm",
    UBUNTU_LIKE,
    ("deb http://deb.debian.org/debian bookworm main",),
    (
        *FINISH,
        "echo deb http://deb.debian.org/debian-security bookworm-security main >> $1/etc/apt/sources.list",
        "chmod 0755 $1/usr/local/sbin/boot-updates $1/usr/local/sbin/chatter",
        "systemctl --root=$1 --quiet enable boot-updates chatter",
    ),
)
BASES = {base.name: base for base in (BOOKWORM, TRIXIE, UBUNTU)}
DEFAULT_BASE = BOOKWORM.name


def source_ami(base: str = DEFAULT_BASE) -> str:
    """The id of the image that a bake on this base starts from."""
    return f"ami-{BASES[base].key()[:17]}"


def folder(folders: Folders, base: str = DEFAULT_BASE) -> Path:
    return folders.roots / f"{OWNED}{BASES[base].key()[:17]}"


def ensure(folders: Folders, say: Say, base: str = DEFAULT_BASE) -> Path:
    """The unpacked root, built on first use (about a minute). Raises LocalCloudError."""
    target = folder(folders, base)
    if target.is_dir():
        return target
    folders.roots.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(target.name + ".making")
    shutil.rmtree(scratch, ignore_errors=True)
    say(f"making the source image {base}, {BASES[base].system}: about a minute, once")
    try:
        run(BASES[base].command(scratch), why="make the source image", timeout=1800)
        run([*OWN, f"--directory={scratch}", "--", "true"], why="give the source image to the machines' root")
    except LocalCloudError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    scratch.rename(target)
    return target
