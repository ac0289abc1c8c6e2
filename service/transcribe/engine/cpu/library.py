"""Kernels as machine code for this processor: compiled once, kept beside the prepared weights, run on torch's threads.

numba compiles them, which takes seconds and memory; what is kept is loaded by llvmlite alone.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import threads
from transcribe.engine.cpu.constants import KERNELS, MULTIPLY

if TYPE_CHECKING:
    import llvmlite.binding as llvm

SOURCES = ("constants.py", "library.py", *(f"source/{name}.py" for name in (*KERNELS, "compile", "products", "simd")))
PATTERN, OURS = "kernels-*.o", "kernels-*"  # complete files; also what a killed writer left
AT_HWCAP, AT_HWCAP2, ASIMDDP, I8MM = 16, 26, 1 << 20, 1 << 13  # of Linux on a 64-bit ARM
DIGEST = 32  # bytes of SHA-256 before the code


class Library:
    """Kernels by name."""

    def __init__(self, code: bytes) -> None:
        """`code` is an object file for this processor. Raises EngineError when it lacks a kernel."""
        import llvmlite.binding as llvm  # 40 MB that GPUs and float32 do without

        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        names = [MULTIPLY, *(name for module in KERNELS.values() for name in module)]
        self._addresses = {name: self._engine.get_function_address(name) for name in names}
        missing = [name for name, address in self._addresses.items() if not address]
        if missing:
            raise EngineError(f"the compiled kernels lack {', '.join(missing)}: delete {OURS} in the model's cache")

    def run(self, name: str, tasks: int, *arguments: Tensor | int) -> None:
        """Runs a kernel for the tasks 0 … tasks - 1, and returns when all are done.

        Raises ValueError for a tensor that is not contiguous; types and sizes are the caller's to get right.
        """
        words = [0, tasks]
        for argument in arguments:
            if isinstance(argument, int):
                words.append(argument)
            elif argument.is_contiguous():
                words.append(argument.data_ptr())
            else:
                raise ValueError(f"{name}: {tuple(argument.shape)} is not contiguous")
        block = (ctypes.c_int64 * len(words))(*words)
        # Always the full team: libgomp ends the threads that a smaller one leaves out.
        team = torch.get_num_threads() if tasks > 1 else 1
        _parallel()(self._addresses[name], ctypes.addressof(block), team)


def instructions() -> str:
    """The instructions that the processor multiplies int8 by, of source/products.py; empty where it has none."""
    if (platform.system(), platform.machine()) == ("Linux", "aarch64"):
        return _arm_instructions()
    has = torch.cpu.get_capabilities()
    if has.get("avx_vnni") or (has.get("avx512_vnni") and has.get("avx512_vl")):
        return "vnni"
    return "avx2" if has.get("avx2") and has.get("fma3") else ""


@functools.cache
def _arm_instructions() -> str:
    """Those of a 64-bit ARM, as the kernel tells every process (its `asm/hwcap.h`)."""
    tell = ctypes.CDLL(None).getauxval
    tell.argtypes, tell.restype = [ctypes.c_ulong], ctypes.c_ulong
    if not tell(AT_HWCAP) & ASIMDDP:
        return "neon"  # all have it
    return "i8mm" if tell(AT_HWCAP2) & I8MM else "dotprod"


def _features() -> str:
    """What LLVM may use of the processor: what numba uses, which can be told. (Emulated, LLVM asks the host.)"""
    import llvmlite.binding as llvm

    told = os.environ.get("NUMBA_CPU_FEATURES")
    return str(llvm.get_host_cpu_features().flatten()) if told is None else told


def _target() -> "llvm.TargetMachine":
    """This processor; an engine owns the one that it is made with."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    host = llvm.Target.from_default_triple()
    return host.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=_features(), opt=3, reloc="pic", codemodel="jitdefault", jit=True
    )


@functools.cache
def _parallel() -> Callable[[int, int, int], None]:
    """Returns a function that runs (address of code, its argument, threads), on torch's own threads.

    Other threads would compete for the same cores. Where torch's cannot be had, it uses one.
    """
    fork = getattr(threads.library(), "GOMP_parallel", None)  # (code, argument, threads, flags); returns when all have
    if fork is None:
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        return lambda code, argument, _threads: entry(code)(argument)
    fork.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    fork.restype = None
    return lambda code, argument, team: fork(code, argument, team, 0)


def _key() -> str:
    """Names the processor, the compiler and the kernels."""
    import llvmlite.binding as llvm

    parts = [llvm.get_host_cpu_name(), _features(), instructions()]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite")]
    sources = [(Path(__file__).parent / name).read_bytes() for name in SOURCES]
    return hashlib.sha256(b"\0".join([*(part.encode() for part in parts), *sources])).hexdigest()[:16]


@functools.cache
def load(folder: Path | None, *, store: bool = True) -> Library:
    """The kernels that `folder` keeps; compiled when there are none for this processor, and kept there if `store` says
    so and it can be written. The processor must have `instructions` for them: LLVM ends the process where it is not.

    Root runs only what root alone can have written.
    """
    if folder is not None and os.geteuid() == 0 and not _roots_own(folder):
        folder = None
    file = folder / PATTERN.replace("*", _key()) if folder is not None else None
    code = _read(file)
    if code is None:
        code = _compiled()
        if store:
            _write(file, code)
    return Library(code)


def _roots_own(folder: Path) -> bool:
    """Whether the folder, its kernels and all its parents belong to root, so that nobody else can place a file."""
    place = folder.resolve()
    known = [found for found in (place, *place.parents, *place.glob(OURS)) if found.exists()]
    return all(found.lstat().st_uid == 0 for found in known)


@functools.cache
def _compiled() -> bytes:
    from transcribe.engine.cpu.source.compile import kernels, linked  # numba, which takes time and memory

    target = _target()
    code: bytes = target.emit_object(linked(kernels(instructions()), target))
    return code


def _read(file: Path | None) -> bytes | None:
    """The code in `file`; None when there is none, or it is damaged."""
    if file is None:
        return None
    try:
        content = file.read_bytes()
    except OSError:
        return None
    code = content[DIGEST:]
    return code if hashlib.sha256(code).digest() == content[:DIGEST] else None


def _write(file: Path | None, code: bytes) -> None:
    """Stores the code and removes that for other processors; if it cannot be written, the next start compiles again."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.stem, delete=False) as new:
            new.write(hashlib.sha256(code).digest() + code)
            new.flush()
            os.fsync(new.fileno())
            os.fchmod(new.fileno(), 0o644)  # who warms the model writes it, the service's user reads it
        Path(new.name).replace(file)
        for old in set(file.parent.glob(OURS)) - {file}:
            old.unlink(missing_ok=True)
    except OSError:
        return
