"""Where the kernels that were compiled for this GPU are kept, so that no later start compiles them again.

Where torch's build has no machine code for a GPU, the driver compiles it from PTX, and torch compiles a few kernels at
run time. Both would store the results in the user's home, but the service has none: every start would compile for
minutes. For a T4 the locked build has machine code. (The processor's kernels are stored by cpu/library.py.)
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from transcribe.engine.cpu.library import PATTERN

# By NVIDIA's documentation of CUDA's environment variables, and torch's.
FOLDERS = {"CUDA_CACHE_PATH": "driver", "PYTORCH_KERNEL_CACHE_PATH": "torch"}


def keep(folder: Path, *, store: bool = True) -> None:
    """Sets the folders, unless the environment does. Call it before the GPU is used for the first time.

    torch uses its folder only where it can write: without `store` it gets a copy, which ends with the process.
    """
    if not store and folder.is_dir():
        scratch = tempfile.mkdtemp(prefix="transcribe-kernels-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        for name in FOLDERS.values():
            if (folder / name).is_dir():
                shutil.copytree(folder / name, Path(scratch, name))
        folder = Path(scratch)
    for variable, name in FOLDERS.items():
        os.environ.setdefault(variable, str(folder / name))


def stored(folder: Path | None) -> bool:
    """Whether any are kept below `folder`."""
    if folder is None:
        return False
    for_gpu = (path for name in FOLDERS.values() for path in (folder / name).rglob("*"))
    return any(path.is_file() for path in for_gpu) or any(folder.rglob(PATTERN))
