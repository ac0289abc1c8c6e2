"""The product of int8 matrices, by the instructions that the processor has. For numba: only the compiler imports this.

LLVM does not find these instructions by itself, so the inner loop is written in LLVM's own language.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from transcribe.engine.cpu.constants import BLOCK, DOT_OUTPUTS, OUTPUTS, ROW_BLOCK
from transcribe.engine.cpu.source.simd import Function, declare, intrinsic, kernel, prefetch

BYTE, INT32 = ir.IntType(8), ir.IntType(32)
BYTES, SHORTS = ir.VectorType(BYTE, BLOCK), ir.VectorType(ir.IntType(16), BLOCK // 2)
SUMS = ir.VectorType(INT32, BLOCK // 4)
QUAD, FLOATS = ir.VectorType(INT32, DOT_OUTPUTS), ir.VectorType(ir.FloatType(), DOT_OUTPUTS)


class Form(NamedTuple):
    """How one kind of processor multiplies bytes and sums the products in int32, exactly."""

    rows: int  # of levels that are multiplied together: as many sums as the registers can hold
    prepare: Callable[[Any, Any], Sequence[Any]]  # levels as `add` takes them
    add: Callable[[Any, Any, Sequence[Any], Any], Any]  # (builder, sums, prepared levels, weights) → sums
    reduce: Callable[[Any, Sequence[Any]], Any]  # each of DOT_OUTPUTS registers to one sum
    signed: bool  # whether the sums are those of levels - 128 already


def _add_vnni(builder: Any, total: Any, levels: Sequence[Any], weights: Any) -> Any:
    """vpdpbusd: unsigned bytes times signed ones, four products added to each sum without overflow."""
    add = declare(builder, "llvm.x86.avx512.vpdpbusd.256", SUMS, [SUMS, BYTES, BYTES])
    return builder.call(add, [total, *levels, weights])


def _reduce_vnni(builder: Any, totals: Sequence[Any]) -> Any:
    reduce = declare(builder, f"llvm.vector.reduce.add.v{SUMS.count}i32", INT32, [SUMS])
    sums = [builder.call(reduce, [total]) for total in totals]
    together = ir.Constant(QUAD, ir.Undefined)
    for output, one in enumerate(sums):
        together = builder.insert_element(together, one, ir.Constant(INT32, output))
    return together


def _prepare_avx2(builder: Any, levels: Any) -> Sequence[Any]:
    """levels - 128, and their magnitudes."""
    numbers = builder.xor(levels, ir.Constant(BYTES, [-128] * BLOCK))
    magnitude = declare(builder, f"llvm.abs.v{BLOCK}i8", BYTES, [BYTES, ir.IntType(1)])
    return numbers, builder.call(magnitude, [numbers, ir.Constant(ir.IntType(1), 0)])


def _add_avx2(builder: Any, total: Any, levels: Sequence[Any], weights: Any) -> Any:
    """vpmaddubsw saturates where two products exceed int16: with levels up to 255 they do. So the levels' signs go to
    the weights, which leaves 2 · 128 · 127 at most. (Faster than widening both to int16, but for many rows alike.)"""
    numbers, magnitudes = levels
    sign = declare(builder, "llvm.x86.avx2.psign.b", BYTES, [BYTES, BYTES])
    pairs = declare(builder, "llvm.x86.avx2.pmadd.ub.sw", SHORTS, [BYTES, BYTES])
    widen = declare(builder, "llvm.x86.avx2.pmadd.wd", SUMS, [SHORTS, SHORTS])
    products = builder.call(pairs, [magnitudes, builder.call(sign, [weights, numbers])])
    return builder.add(total, builder.call(widen, [products, ir.Constant(SHORTS, [1] * SHORTS.count)]))


def _reduce_avx2(builder: Any, totals: Sequence[Any]) -> Any:
    add = declare(builder, "llvm.x86.avx2.phadd.d", SUMS, [SUMS, SUMS])  # neighbours, in each half of a register
    one, two = (builder.call(add, list(totals[first : first + 2])) for first in (0, 2))
    both = builder.call(add, [one, two])
    halves = (ir.Constant(QUAD, [*range(first, first + 4)]) for first in (0, 4))
    return builder.add(*(builder.shuffle_vector(both, both, half) for half in halves))


FORMS = {
    "vnni": Form(4, lambda _, levels: [levels], _add_vnni, _reduce_vnni, signed=False),
    "avx2": Form(2, _prepare_avx2, _add_avx2, _reduce_avx2, signed=True),
}


def _at(builder: Any, start: Any, place: tuple[Any, int], kind: ir.Type) -> Any:
    """A pointer to the address `start` plus count times distance, `place` being (distance, count)."""
    distance, count = place
    address = builder.add(start, builder.mul(distance, ir.Constant(distance.type, count)))
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, start: Any, place: tuple[Any, int], kind: ir.Type) -> Any:
    return builder.load(_at(builder, start, place, kind), align=1)


def _sums(builder: Any, form: Form, rows: int, levels: Any, weight: Any, inputs: Any) -> list[Any]:
    """The sums of each of `rows` rows of levels times each of DOT_OUTPUTS rows of the weight, in registers of SUMS."""
    totals = [cgutils.alloca_once_value(builder, ir.Constant(SUMS, None)) for _ in range(rows * DOT_OUTPUTS)]
    with cgutils.for_range(builder, builder.udiv(inputs, ir.Constant(inputs.type, BLOCK))) as loop:
        place = builder.mul(loop.index, ir.Constant(inputs.type, BLOCK))
        here, there = builder.add(levels, place), builder.add(weight, place)
        read = [form.prepare(builder, _load(builder, here, (inputs, row), BYTES)) for row in range(rows)]
        matrix = [_load(builder, there, (inputs, output), BYTES) for output in range(DOT_OUTPUTS)]
        for output in range(DOT_OUTPUTS):
            prefetch(builder, _at(builder, there, (inputs, DOT_OUTPUTS + output), BYTE))
        for total, (row, column) in zip(totals, itertools.product(read, matrix), strict=True):
            builder.store(form.add(builder, builder.load(total), row, column), total)
    return [builder.load(total) for total in totals]


def _dots(form: Form, rows: int) -> Function:
    """Makes dots(levels, weight, inputs, zeros, scale, target, stride) of addresses and sizes: sums of `rows` rows of
    uint8 levels times each of DOT_OUTPUTS rows of an int8 weight, all of so many inputs, a multiple of BLOCK; less
    `zeros`, times `scale`, as float32 to the target, whose rows are `stride` bytes apart."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        levels, weight, inputs, zeros, scale, target, stride = values
        totals = _sums(builder, form, rows, levels, weight, inputs)
        less, times = _load(builder, zeros, (inputs, 0), QUAD), _load(builder, scale, (inputs, 0), FLOATS)
        for row in range(rows):
            sums = form.reduce(builder, totals[row * DOT_OUTPUTS : (row + 1) * DOT_OUTPUTS])
            sums = sums if form.signed else builder.sub(sums, less)
            numbers = builder.fmul(builder.sitofp(sums, FLOATS), times)
            builder.store(numbers, _at(builder, target, (stride, row), FLOATS), align=1)
        return ir.Constant(ir.IntType(64), 0)

    @intrinsic
    def dots(
        _context: Any, _levels: Any, _weight: Any, _inputs: Any, _zeros: Any, _scale: Any, _target: Any, _stride: Any
    ) -> Any:
        return types.int64(*[types.int64] * 7), generate

    return dots


def multiply(instructions: str) -> Function:
    """The kernel `multiply`, by the instructions that one of FORMS is for."""
    form = FORMS[instructions]
    together, dots_of_rows, dots_of_row = form.rows, _dots(form, form.rows), _dots(form, 1)

    @kernel
    def multiply(
        task: int, rows: int, inputs: int, outputs: int, levels: int, weight: int, zeros: int, scale: int, product: int
    ) -> None:
        """Levels [rows, inputs] times a weight int8 [outputs, inputs], each output times its scale: float32, product.

        A task is ROW_BLOCK rows and OUTPUTS outputs. zeros: int32 [outputs], what levels of zero add up to.
        """
        groups, stride = (outputs + OUTPUTS - 1) // OUTPUTS, outputs * 4
        begin, start = task // groups * ROW_BLOCK, task % groups * OUTPUTS
        end = min(begin + ROW_BLOCK, rows)
        whole = end - (end - begin) % together
        for first in range(start, min(start + OUTPUTS, outputs), DOT_OUTPUTS):
            output = min(first, outputs - DOT_OUTPUTS)  # the last few may be done twice
            matrix, target = weight + output * inputs, product + output * 4
            zero, times = zeros + output * 4, scale + output * 4
            for row in range(begin, whole, together):
                dots_of_rows(levels + row * inputs, matrix, inputs, zero, times, target + row * stride, stride)
            for row in range(whole, end):
                dots_of_row(levels + row * inputs, matrix, inputs, zero, times, target + row * stride, stride)

    return multiply
