"""Building blocks of the kernels. For numba: only the compiler imports this."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic as _intrinsic

from transcribe.engine.cpu import constants

FLAGS = {"fastmath": True, "error_model": "numpy"}  # nothing raises: the compiled code needs no Python
Function = Callable[..., Any]
F = np.float32
LOG2E, SMALLEST = F(constants.LOG2E), F(constants.SMALLEST)
HALF_BFLOAT16 = np.int32(0x8000)
MANTISSA = np.int32(23)  # bits
BIAS = np.int32(127)
LINE = 64  # bytes that memory is read by


def inlined(function: Function) -> Function:
    """Marks a part of kernels."""
    made: Function = numba.njit(inline="always", **FLAGS)(function)
    return made


padded_length = inlined(constants.padded)


def declare(builder: Any, name: str, result: ir.Type, arguments: list[ir.Type]) -> Any:
    """One of LLVM's own functions."""
    return builder.module.declare_intrinsic(name, (), ir.FunctionType(result, arguments))


def prefetch(builder: Any, pointer: Any) -> None:
    """Prefetches memory for reading, into all caches."""
    number = ir.IntType(32)
    asked = declare(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer.type, number, number, number])
    builder.call(asked, [pointer, *(ir.Constant(number, flag) for flag in (0, 3, 1))])


def kernel(function: Function) -> Function:
    """One that can be called from outside by its name, if constants.KERNELS lists it."""
    made: Function = numba.njit(**FLAGS)(function)
    return made


def intrinsic(function: Function) -> Function:
    """Marks a function written in LLVM's instructions: it returns its signature and what generates them."""
    made: Function = _intrinsic(function)
    return made


def _memory(kind: Any, width: ir.Type) -> Any:
    """Makes a function from an address and a count to an array."""

    @intrinsic
    def pointer(_context: Any, _address: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], width.as_pointer())

        return types.CPointer(kind)(types.int64), generate

    @inlined
    def memory(address: Any, count: Any) -> Any:
        return numba.carray(pointer(address), (count,))

    return memory


floats = _memory(types.float32, ir.FloatType())
doubles = _memory(types.float64, ir.DoubleType())
halves = _memory(types.uint16, ir.IntType(16))  # bfloat16, by its bits
signed = _memory(types.int8, ir.IntType(8))
unsigned = _memory(types.uint8, ir.IntType(8))
integers = _memory(types.int64, ir.IntType(64))


@inlined
def row_of(address: Any, row: Any, columns: Any) -> Any:
    """A row of float32 [rows, columns]."""
    return floats(address + row * columns * 4, columns)


@intrinsic
def next_task(_context: Any, _counter: Any) -> Any:
    """The counter's value before it is raised by one, whoever else does the same."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", values[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.CPointer(types.int64)), generate


@intrinsic
def _prefetch(_context: Any, _address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        prefetch(builder, builder.inttoptr(values[0], ir.IntType(8).as_pointer()))
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(types.int64), generate


@inlined
def prefetch_range(address: Any, count: Any) -> None:
    """Prefetches `count` bytes, which the processor only does by itself for what is read in order."""
    for line in range(0, count, LINE):
        _prefetch(address + line)


@intrinsic
def _as_float(_context: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _bits_of(_context: Any, _number: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.IntType(32))

    return types.int32(types.float32), generate


def _chosen(name: str) -> Function:
    """One of LLVM's choices between two floats, neither of them NaN: numba's own are not made into vectors."""

    @intrinsic
    def choose(_context: Any, _one: Any, _other: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            kind = ir.FloatType()
            return builder.call(declare(builder, name, kind, [kind, kind]), values, fastmath=("fast",))

        return types.float32(types.float32, types.float32), generate

    return choose


maximum, minimum = _chosen("llvm.maxnum.f32"), _chosen("llvm.minnum.f32")


@inlined
def widened(half: Any) -> Any:
    """float32 of a bfloat16's bits."""
    return _as_float(np.int32(half) << np.int32(16))


@inlined
def narrowed(number: Any) -> Any:
    """The bits of the nearest bfloat16."""
    return np.uint16((_bits_of(number) + HALF_BFLOAT16) >> np.int32(16))


@inlined
def exp2(exponent: Any) -> Any:
    """Two to the `exponent` ≤ 126, to one in 10^7: the fraction by its Taylor series of degree 6, the rest by bits."""
    exponent = maximum(exponent, F(-126.0))
    whole = np.floor(exponent + F(0.5))
    x = (exponent - whole) * F(0.6931471805599453)
    series = F(1 / 720) * x + F(1 / 120)
    series = series * x + F(1 / 24)
    series = series * x + F(1 / 6)
    series = series * x + F(1 / 2)
    series = series * x + F(1)
    series = series * x + F(1)
    return series * _as_float((np.int32(whole) + BIAS) << MANTISSA)


@inlined
def rough_exp2(exponent: Any) -> Any:
    """The same to 7.5 · 10^-5, which is finer than a bfloat16: a polynomial of degree 3 for the fraction 0 … 1, of
    least relative error, and continuous at the ends."""
    exponent = maximum(exponent, F(-126.0))
    whole = np.floor(exponent)
    x = exponent - whole
    series = F(0.07802453143) * x + F(0.22606716413)
    series = series * x + F(0.69583352585)
    series = series * x + F(0.99992522141)
    return series * _as_float((np.int32(whole) + BIAS) << MANTISSA)


@inlined
def gelu(x: Any) -> Any:
    """x times the normal distribution's share below x. (Abramowitz and Stegun 7.1.26; off by 1.5 · 10^-7 at most.)"""
    z = abs(x) * F(0.7071067811865476)
    t = F(1) / (F(1) + F(0.3275911) * z)
    series = F(1.061405429) * t - F(1.453152027)
    series = series * t + F(1.421413741)
    series = series * t - F(0.284496736)
    series = series * t + F(0.254829592)
    tail = F(0.5) * series * t * exp2(-z * z * LOG2E)  # the share beyond |x|
    return x * (F(1) - tail) if x >= F(0) else x * tail


@inlined
def quantize(row: Any, levels: Any, count: Any) -> Any:
    """Quantizes a row of floats to `levels` of uint8: 128 is zero, 1 and 255 are the largest magnitude, which is
    returned. A half is rounded up; NaN becomes any level."""
    absmax = SMALLEST
    for column in range(count):
        absmax = maximum(absmax, abs(row[column]))
    scale = F(127.0) / absmax
    for column in range(count):
        levels[column] = np.uint8(np.int32(row[column] * scale + F(128.5)))  # positive: cut off is rounded down
    return absmax
