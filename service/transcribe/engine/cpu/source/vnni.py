"""Sums of products of bytes: LLVM does not find their instruction by itself. Only the compiler imports this."""

import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from transcribe.engine.cpu.constants import BLOCK, DOT_OUTPUTS, DOT_ROWS
from transcribe.engine.cpu.source.simd import Function, declare, intrinsic, prefetch

BYTES, SUMS = ir.VectorType(ir.IntType(8), BLOCK), ir.VectorType(ir.IntType(32), BLOCK // 4)
TOLD, NUMBERS = ir.VectorType(ir.IntType(32), DOT_OUTPUTS), ir.VectorType(ir.FloatType(), DOT_OUTPUTS)


def _at(builder: Any, start: Any, place: tuple[Any, int], kind: ir.Type) -> Any:
    """A pointer to the address `start` and a distance so many times further."""
    distance, count = place
    address = builder.add(start, builder.mul(distance, ir.Constant(distance.type, count)))
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, start: Any, place: tuple[Any, int], kind: ir.Type) -> Any:
    return builder.load(_at(builder, start, place, kind), align=1)


def _sums(builder: Any, rows: int, levels: Any, weight: Any, inputs: Any) -> list[Any]:
    """The sums of each row of levels times each of the weight's, for one after the other, in registers of SUMS."""
    add = declare(builder, "llvm.x86.avx512.vpdpbusd.256", SUMS, [SUMS, BYTES, BYTES])
    totals = [cgutils.alloca_once_value(builder, ir.Constant(SUMS, None)) for _ in range(rows * DOT_OUTPUTS)]
    with cgutils.for_range(builder, builder.udiv(inputs, ir.Constant(inputs.type, BLOCK))) as loop:
        place = builder.mul(loop.index, ir.Constant(inputs.type, BLOCK))
        here, there = builder.add(levels, place), builder.add(weight, place)
        read = [_load(builder, here, (inputs, row), BYTES) for row in range(rows)]
        matrix = [_load(builder, there, (inputs, output), BYTES) for output in range(DOT_OUTPUTS)]
        for output in range(DOT_OUTPUTS):
            prefetch(builder, _at(builder, there, (inputs, DOT_OUTPUTS + output), ir.IntType(8)))
        for total, (row, column) in zip(totals, itertools.product(read, matrix), strict=True):
            builder.store(builder.call(add, [builder.load(total), row, column]), total)
    return [builder.load(total) for total in totals]


def _dots(rows: int) -> Function:
    """Makes dots(levels, weight, inputs, zeros, scale, target, stride) of addresses and sizes: sums of `rows` rows of
    uint8 levels times each of DOT_OUTPUTS rows of an int8 weight, all of so many inputs, a multiple of BLOCK; less
    `zeros`, times `scale`, as float32 to the target, whose rows are `stride` bytes apart."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        levels, weight, inputs, zeros, scale, target, stride = values
        reduce = declare(builder, f"llvm.vector.reduce.add.v{BLOCK // 4}i32", ir.IntType(32), [SUMS])
        sums = [builder.call(reduce, [total]) for total in _sums(builder, rows, levels, weight, inputs)]
        less, times = _load(builder, zeros, (inputs, 0), TOLD), _load(builder, scale, (inputs, 0), NUMBERS)
        for row in range(rows):
            told = ir.Constant(TOLD, ir.Undefined)
            for output in range(DOT_OUTPUTS):
                place = ir.Constant(ir.IntType(32), output)
                told = builder.insert_element(told, sums[row * DOT_OUTPUTS + output], place)
            numbers = builder.fmul(builder.sitofp(builder.sub(told, less), NUMBERS), times)
            builder.store(numbers, _at(builder, target, (stride, row), NUMBERS), align=1)
        return ir.Constant(ir.IntType(64), 0)

    @intrinsic
    def dots(
        _context: Any, _levels: Any, _weight: Any, _inputs: Any, _zeros: Any, _scale: Any, _target: Any, _stride: Any
    ) -> Any:
        return types.int64(*[types.int64] * 7), generate

    return dots


dots_of_row, dots_of_rows = _dots(1), _dots(DOT_ROWS)
