"""The disk of the source image: a Debian like Debian's own cloud images, built once by mmdebstrap."""

import hashlib
import json
import shutil
from pathlib import Path

from localcloud.common import Folders, LocalCloudError, Say, run
from localcloud.machines.supervisor import USER_COUNT, USERS

SUITE = "bookworm"
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

# systemd-nspawn changes owners by itself, with what belongs to that: set-uid bits and access control lists.
OWN = ["unshare", "--mount", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"]
OWN += ["--console=pipe", "--as-pid2", f"--private-users={USERS}:{USER_COUNT}", "--private-users-ownership=chown"]
OWNED = "owned-"  # before the name of a root whose owner is the machines', not this host's


def key() -> str:
    """A digest of what the root file system is built from; the source image's id is derived from it."""
    return hashlib.sha256(json.dumps([SUITE, PACKAGES, FINISH, USERS]).encode()).hexdigest()


def source_ami() -> str:
    """The id of the image that every bake starts from."""
    return f"ami-{key()[:17]}"


def folder(folders: Folders) -> Path:
    return folders.roots / f"{OWNED}{key()[:17]}"


def ensure(folders: Folders, say: Say) -> Path:
    """The unpacked root, built on first use (about a minute). Raises LocalCloudError."""
    target = folder(folders)
    if target.is_dir():
        return target
    folders.roots.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(target.name + ".making")
    shutil.rmtree(scratch, ignore_errors=True)
    say(f"making the source image, Debian {SUITE}: about a minute, once")
    command = ["mmdebstrap", "--mode=root", "--variant=important", f"--include={','.join(PACKAGES)}"]
    command += [f"--customize-hook={hook}" for hook in FINISH]
    try:
        run([*command, SUITE, scratch], why="make the source image", timeout=1800)
        run([*OWN, f"--directory={scratch}", "--", "true"], why="give the source image to the machines' root")
    except LocalCloudError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    scratch.rename(target)
    return target
