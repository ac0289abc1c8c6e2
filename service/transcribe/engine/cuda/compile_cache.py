"""Where kernels are kept that had to be compiled for this machine, so that no later start compiles them again.

Those for its processor are cpu/library.py's, which lie beside the prepared weights. What torch's build has no machine
code for on a GPU, the driver compiles from its PTX, and torch itself compiles a few kernels at run time. Both would
keep them in the user's home, which the service has none of: without this they would be compiled at every start, for
minutes. For a T4 the locked build has machine code, so that nothing need be stored.
"""

import os
from pathlib import Path

from transcribe.engine.cpu.library import PATTERN

# By NVIDIA's documentation of CUDA's environment variables, and torch's.
FOLDERS = {"CUDA_CACHE_PATH": "driver", "PYTORCH_KERNEL_CACHE_PATH": "torch"}


def keep(folder: Path) -> None:
    """Says where; before the GPU is used for the first time. What the environment says already is left alone."""
    for variable, name in FOLDERS.items():
        os.environ.setdefault(variable, str(folder / name))


def stored(folder: Path | None) -> bool:
    """Whether any are kept below `folder`."""
    if folder is None:
        return False
    for_gpu = (path for name in FOLDERS.values() for path in (folder / name).rglob("*"))
    return any(path.is_file() for path in for_gpu) or any(folder.rglob(PATTERN))
