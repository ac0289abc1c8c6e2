"""Compiles CUDA C++ for this GPU with NVRTC, which comes with torch, and starts its kernels through the driver.

The machine needs no compiler of its own. The machine code is kept, so that a start need not compile it again.
"""

import ctypes
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

PATTERN = "gpu-kernels-*.cubin"
OPTIONS = (b"--std=c++17", b"--fmad=true")
DRIVER = "libcuda.so.1"


class CompilerError(RuntimeError):
    """No kernel could be compiled or loaded: why, in one line."""


def _nvrtc() -> ctypes.CDLL:
    """The compiler that torch brought, or the system's."""
    packages = Path(torch.__file__).parents[1]
    brought = sorted(packages.glob("nvidia/*/lib/libnvrtc.so.*")) + sorted(packages.glob("torch/lib/libnvrtc*.so*"))
    found = [str(path) for path in brought if "builtins" not in path.name and "alt" not in path.name]
    major = str(torch.version.cuda or "").split(".")[0]
    for name in (*found, f"libnvrtc.so.{major}", "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CompilerError("NVRTC, CUDA's compiler, was not found beside torch")


def compile_source(source: str, architecture: str) -> bytes:
    """Machine code for a GPU like "sm_75". Raises CompilerError with what the compiler said."""
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None):
        raise CompilerError("NVRTC cannot be used")
    try:
        options = (*OPTIONS, f"--gpu-architecture={architecture}".encode())
        failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if failed:
            said = _answer(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            text = " ".join(said.rstrip(b"\0").decode(errors="replace").split())
            raise CompilerError(text[:300] or f"NVRTC failed ({failed})")
        return _answer(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _answer(size_of: object, content_of: object, program: ctypes.c_void_p) -> bytes:
    """Bytes that NVRTC gives by two functions, the first of which tells how many."""
    size = ctypes.c_size_t()
    assert callable(size_of)
    assert callable(content_of)
    size_of(program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    content_of(program, content)
    return content.raw


def machine_code(source: str, folder: Path | None, *, store: bool) -> bytes:
    """Of `source` for the current GPU: from `folder`, or compiled now, and then kept there if `store` says so. Raises
    CompilerError."""
    major, minor = torch.cuda.get_device_capability()
    key = hashlib.sha256(f"{source}\0{OPTIONS}\0sm_{major}{minor}\0{torch.__version__}".encode()).hexdigest()[:16]
    path = folder / PATTERN.replace("*", key) if folder is not None else None
    if path is not None and path.is_file():
        return path.read_bytes()
    code = compile_source(source, f"sm_{major}{minor}")
    if path is not None and store:
        _keep(path, code)
    return code


def _keep(path: Path, code: bytes) -> None:
    """Keeps the machine code in place of any other; a folder that cannot be written is no fault."""
    try:
        for old in path.parent.glob(PATTERN):
            old.unlink()
        new = path.with_suffix(".new")
        new.write_bytes(code)
        new.chmod(0o644)  # who warms the model writes it, the service's user reads it
        new.replace(path)
    except OSError:
        return


class Module:
    """Loaded machine code."""

    def __init__(self, code: bytes) -> None:
        """Raises CompilerError if the driver refuses it."""
        torch.cuda.synchronize()  # there is a context from now on
        self._driver = ctypes.CDLL(DRIVER)
        self._module = ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), code), "loading")

    def _check(self, status: int, what: str) -> None:
        if status:
            name = ctypes.c_char_p()
            self._driver.cuGetErrorName(status, ctypes.byref(name))
            raise CompilerError(f"{what} a kernel failed: {(name.value or b'').decode() or status}")

    def _function(self, name: str) -> ctypes.c_void_p:
        if name not in self._functions:
            function = ctypes.c_void_p()
            found = self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, name.encode())
            self._check(found, f"looking up {name},")
            self._functions[name] = function
        return self._functions[name]

    def start(
        self, name: str, grid: tuple[int, int], threads: int, arguments: Sequence[Tensor | int], shared: int = 0
    ) -> None:
        """Starts a kernel on torch's current stream, with so many bytes of dynamic shared memory. Numbers are 32 bits
        wide; types and sizes are the caller's to get right. Raises CompilerError."""
        values = [ctypes.c_int(one) if isinstance(one, int) else ctypes.c_void_p(one.data_ptr()) for one in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        status = self._driver.cuLaunchKernel(
            self._function(name), *grid, 1, threads, 1, 1, shared, stream, addresses, None
        )
        self._check(status, f"starting {name},")
