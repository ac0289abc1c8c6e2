"""The threads that torch works with: those of the OpenMP that it brings, GCC's libgomp."""

import ctypes
import functools
import re
from collections.abc import Callable
from pathlib import Path

import torch


def limit(threads: int) -> None:
    """How many threads share the work of the calling thread from now on; what others have stays as it is.

    torch.set_num_threads would be for all: threads that are new take its number, and matrix products (MKL's) of every
    thread. Each thread that shares its work has helpers of its own, and once there are more than cores, libgomp lets
    all of them sleep between two loops in place of waiting for the next: a token's small loops then take half as long
    again.
    """
    torch.get_num_threads()  # torch sets the number itself when a thread first asks for it, and must not do so later
    gomp = library()
    if gomp is None:
        torch.set_num_threads(threads)
        return
    gomp.omp_set_num_threads(threads)
    if (products := _mkl()) is not None:
        products(threads)


@functools.cache
def library() -> ctypes.CDLL | None:
    """torch's own OpenMP; None where it has none, as on a Mac."""
    try:
        return ctypes.CDLL(file())
    except OSError:
        return None


@functools.cache
def _mkl() -> Callable[[int], int] | None:
    """What limits the matrix products of the calling thread, where torch was built with MKL."""
    try:
        torch_itself = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        limit_products: Callable[[int], int] = torch_itself.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
    return limit_products


def file() -> str:
    """The file of the OpenMP that torch brought and loaded; there may be others. Raises OSError when there is none."""
    home = re.escape(str(Path(torch.__file__).resolve().parent))  # the kernel tells of files, not of links
    found = re.search(rf"{home}(?:/lib|\.libs)/libgomp.*", Path("/proc/self/maps").read_text())
    if found is None:
        raise OSError("torch has no OpenMP of its own here")
    return found[0]
