"""A local cloud of a test's own, beside the project's; it shares what that has fetched."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from localcloud import host
from localcloud.client import folders_of
from localcloud.common import Folders, say_on_stderr
from localcloud.machines import base_image

from support.baked_machine import ROOT

SHARED = ("apt", "machine-pip", "models", "pip", "venvs")  # of the project's cache


@contextlib.contextmanager
def preparing() -> Iterator[None]:
    """What all machine tests share is made by one process at a time."""
    with (ROOT / ".cache" / "machine-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def share(root: Path) -> Folders:
    """Let `root` have a local cloud, of no images yet. Big folders are links, which are not deleted through."""
    mine, project = folders_of(root), folders_of(ROOT)
    mine.roots.mkdir(parents=True)
    with preparing():
        host.prepare(say_on_stderr)
        base_image.folder(mine).symlink_to(base_image.ensure(project, say_on_stderr))
    for name in SHARED:
        (project.cache / name).mkdir(exist_ok=True)
        (mine.cache / name).symlink_to(project.cache / name)
    return mine
