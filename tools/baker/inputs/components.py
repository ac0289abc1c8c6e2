"""Component validation: everything that a bake needs is there before anything is built or launched."""

from collections.abc import Sequence
from pathlib import Path

from baker.errors import UsageError
from baker.inputs import source_tree

FOLDERS = ("cloud-init", *source_tree.PAYLOAD_FOLDERS)

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
    "service/advanced_cache.py",
    "service/transcribe-api.service",
    "service/transcribe-worker.service",
    "salt/lockedvenv.py",
    "service/cpu.lock",
    "service/cuda.lock",
    "service/transcribe/__init__.py",
)


def validate(root: Path, clips: Sequence[str]) -> None:
    """Raise one UsageError that names every missing or unusable file; `clips` are names in service/clips.

    A file that git tracks must be there too: removed by accident, it would be missing on the machine only.
    """
    wanted = {*REQUIRED, *(f"service/clips/{name}" for name in clips), *source_tree.files(root, FOLDERS)}
    missing = sorted(name for name in wanted if not (root / name).is_file())
    links = sorted(name for name in wanted if (root / name).is_symlink())
    empty = sorted(name for name in REQUIRED if not name.endswith("__init__.py") and _is_empty(root / name))
    findings = {"missing": missing, "symbolic links, which a payload cannot hold": links, "empty": empty}
    problems = [f"{what}: {', '.join(names)}" for what, names in findings.items() if names]
    if problems:
        raise UsageError(f"components {'; '.join(problems)} (looked in {root})")


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0
