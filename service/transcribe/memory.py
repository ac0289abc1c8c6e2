"""What the C library does with freed memory; see mallopt(3) and malloc_trim(3). Without glibc these do nothing.

By itself glibc gives each thread an arena of its own, up to eight a core, and no memory goes from one to another. Each
keeps the most that its thread ever needed: with two dozen threads that decode, hundreds of megabytes.
"""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
LARGEST_BLOCK = 1 << 30  # bytes
ARENAS = 2  # the engine's thread has its own, so that no decoder waits for it


def share_arenas() -> None:
    """Lets all further threads share a few arenas. To be called before they start."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def keep_large_blocks() -> None:
    """Keeps large blocks for the next use: asking the kernel for the encoder's again costs a third of its time."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        library.mallopt(M_TRIM_THRESHOLD, LARGEST_BLOCK)


def give_back() -> None:
    """Returns to the kernel what is free now. What is needed next has to be asked for again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
