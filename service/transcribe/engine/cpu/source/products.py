"""The product of int8 matrices, by the instructions that the processor has. For numba: only the compiler imports this.

LLVM does not find these instructions by itself, so the inner loop is written in LLVM's own language.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from transcribe.engine.cpu.constants import DOT_OUTPUTS, OUTPUTS, ROW_BLOCK
from transcribe.engine.cpu.source.simd import Function, declare, intrinsic, kernel, prefetch

BYTE, SHORT, INT32, FLAG = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(1)
QUAD, FLOATS = ir.VectorType(INT32, DOT_OUTPUTS), ir.VectorType(ir.FloatType(), DOT_OUTPUTS)
BYTES, SHORTS, SUMS = ir.VectorType(BYTE, 32), ir.VectorType(SHORT, 16), ir.VectorType(INT32, 8)  # of AVX2
NEON_BYTES, NEON_SHORTS, NEON_SUMS = ir.VectorType(BYTE, 16), ir.VectorType(SHORT, 8), ir.VectorType(INT32, 4)
Values = Sequence[Any]  # registers, or tuples of them


@dataclass(frozen=True)
class Form:
    """How one kind of processor multiplies bytes and sums the products in int32, exactly."""

    rows: int  # of levels that are multiplied together: as many sums as the registers can hold
    bytes: ir.VectorType  # a register
    sums: ir.VectorType
    add: Callable[[Any, Any, Any, Any], Any]  # (builder, sums, levels, weights) → sums
    reduce: Callable[[Any, Values], Values]  # the sums of a row, or of a tile's two, to a QUAD for each
    levels: Callable[[Any, Values], Values]  # a register of each row as `add` takes them
    signed: bool = True  # whether the sums are those of levels - 128 already
    tile: int = 1  # rows, and as many outputs, whose sums share a register

    def weights(self, builder: Any, outputs: Values) -> Values:
        """A register of each output as `add` takes them."""
        return outputs if self.tile == 1 else _paired(builder, outputs)


def _each(prepare: Callable[[Any, Any], Any]) -> Callable[[Any, Values], Values]:
    return lambda builder, rows: [prepare(builder, row) for row in rows]


def _add_vnni(builder: Any, total: Any, levels: Any, weights: Any) -> Any:
    """vpdpbusd: unsigned bytes times signed ones, four products added to each sum without overflow."""
    add = declare(builder, "llvm.x86.avx512.vpdpbusd.256", SUMS, [SUMS, BYTES, BYTES])
    return builder.call(add, [total, levels, weights])


def _reduce_vnni(builder: Any, totals: Values) -> Values:
    reduce = declare(builder, f"llvm.vector.reduce.add.v{SUMS.count}i32", INT32, [SUMS])
    sums = [builder.call(reduce, [total]) for total in totals]
    together = ir.Constant(QUAD, ir.Undefined)
    for output, one in enumerate(sums):
        together = builder.insert_element(together, one, ir.Constant(INT32, output))
    return [together]


def _less_128(builder: Any, levels: Any) -> Any:
    return builder.xor(levels, ir.Constant(levels.type, [-128] * levels.type.count))


def _prepare_avx2(builder: Any, levels: Any) -> Any:
    """levels - 128, and their magnitudes."""
    numbers = _less_128(builder, levels)
    magnitude = declare(builder, f"llvm.abs.v{BYTES.count}i8", BYTES, [BYTES, FLAG])
    return numbers, builder.call(magnitude, [numbers, ir.Constant(FLAG, 0)])


def _add_avx2(builder: Any, total: Any, levels: Any, weights: Any) -> Any:
    """vpmaddubsw saturates where two products exceed int16: with levels up to 255 they do. So the levels' signs go to
    the weights, which leaves 2 · 128 · 127 at most. (Faster than widening both to int16, but for many rows alike.)"""
    numbers, magnitudes = levels
    sign = declare(builder, "llvm.x86.avx2.psign.b", BYTES, [BYTES, BYTES])
    pairs = declare(builder, "llvm.x86.avx2.pmadd.ub.sw", SHORTS, [BYTES, BYTES])
    widen = declare(builder, "llvm.x86.avx2.pmadd.wd", SUMS, [SHORTS, SHORTS])
    products = builder.call(pairs, [magnitudes, builder.call(sign, [weights, numbers])])
    return builder.add(total, builder.call(widen, [products, ir.Constant(SHORTS, [1] * SHORTS.count)]))


def _reduce_avx2(builder: Any, totals: Values) -> Values:
    add = declare(builder, "llvm.x86.avx2.phadd.d", SUMS, [SUMS, SUMS])  # neighbours, in each half of a register
    both = _reduce_neighbours(builder, add, totals)
    return [builder.add(*(builder.shuffle_vector(both, both, half) for half in _halves(QUAD)))]


def _reduce_neighbours(builder: Any, add: Any, totals: Values) -> Any:
    """Of four registers, by an `add` of neighbours in two."""
    return builder.call(add, [builder.call(add, list(totals[first : first + 2])) for first in (0, 2)])


def _halves(half: ir.VectorType) -> Values:
    """The places of either half of a register that holds twice what `half` does."""
    places = ir.VectorType(INT32, half.count)
    return [ir.Constant(places, [*range(first, first + half.count)]) for first in (0, half.count)]


def _add_neon(builder: Any, total: Any, levels: Any, weights: Any) -> Any:
    """Two products of bytes fit int16, 2 · 128 · 127 at most; neighbours of those are then added as int32."""
    half = ir.VectorType(BYTE, NEON_SHORTS.count)
    multiply = declare(builder, "llvm.aarch64.neon.smull.v8i16", NEON_SHORTS, [half, half])
    widen = declare(builder, "llvm.aarch64.neon.saddlp.v4i32.v8i16", NEON_SUMS, [NEON_SHORTS])
    products = [
        builder.call(multiply, [builder.shuffle_vector(value, value, places) for value in (levels, weights)])
        for places in _halves(half)
    ]
    return builder.add(total, builder.call(widen, [builder.add(*products)]))


def _add_dot(builder: Any, total: Any, levels: Any, weights: Any) -> Any:
    """sdot: signed bytes, four products added to each sum."""
    add = declare(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", NEON_SUMS, [NEON_SUMS, NEON_BYTES, NEON_BYTES])
    return builder.call(add, [total, levels, weights])


def _reduce_neon(builder: Any, totals: Values) -> Values:
    add = declare(builder, "llvm.aarch64.neon.addp.v4i32", NEON_SUMS, [NEON_SUMS, NEON_SUMS])
    return [_reduce_neighbours(builder, add, totals)]


def _paired(builder: Any, registers: Values) -> Values:
    """Of two registers each: the lower halves of both, and the upper ones."""
    words = ir.VectorType(ir.IntType(64), 2)
    paired = []
    for first in range(0, len(registers), 2):
        one, other = (builder.bitcast(register, words) for register in registers[first : first + 2])
        places = (ir.Constant(ir.VectorType(INT32, 2), [half, 2 + half]) for half in (0, 1))
        paired.append(tuple(builder.bitcast(builder.shuffle_vector(one, other, at), NEON_BYTES) for at in places))
    return paired


def _add_tile(builder: Any, total: Any, levels: Any, weights: Any) -> Any:
    """smmla: two rows of eight signed bytes times two outputs, to the four sums of a tile."""
    add = declare(builder, "llvm.aarch64.neon.smmla.v4i32.v16i8", NEON_SUMS, [NEON_SUMS, NEON_BYTES, NEON_BYTES])
    for row, output in zip(levels, weights, strict=True):
        total = builder.call(add, [total, row, output])
    return total


def _reduce_tile(builder: Any, totals: Values) -> Values:
    one, other = totals
    places = ([0, 1, 4, 5], [2, 3, 6, 7])
    return [builder.shuffle_vector(one, other, ir.Constant(QUAD, place)) for place in places]


_DOT = Form(4, NEON_BYTES, NEON_SUMS, _add_dot, _reduce_neon, _each(_less_128))
# By the instructions that library.instructions() names: for many rows, and for one.
FORMS = {
    "vnni": (Form(4, BYTES, SUMS, _add_vnni, _reduce_vnni, lambda _, rows: rows, signed=False),) * 2,
    "avx2": (Form(2, BYTES, SUMS, _add_avx2, _reduce_avx2, _each(_prepare_avx2)),) * 2,
    "neon": (Form(4, NEON_BYTES, NEON_SUMS, _add_neon, _reduce_neon, _each(_less_128)),) * 2,
    "dotprod": (_DOT, _DOT),
    "i8mm": (
        Form(
            8,
            NEON_BYTES,
            NEON_SUMS,
            _add_tile,
            _reduce_tile,
            lambda builder, rows: _paired(builder, _each(_less_128)(builder, rows)),
            tile=2,
        ),
        _DOT,
    ),
}


def _at(builder: Any, start: Any, place: tuple[Any, int], kind: ir.Type) -> Any:
    """A pointer to the address `start` plus count times distance, `place` being (distance, count)."""
    distance, count = place
    address = builder.add(start, builder.mul(distance, ir.Constant(distance.type, count)))
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, start: Any, place: tuple[Any, int], kind: ir.Type) -> Any:
    return builder.load(_at(builder, start, place, kind), align=1)


def _sums(builder: Any, form: Form, rows: int, levels: Any, weight: Any, inputs: Any) -> list[Any]:
    """The sums of each of `rows` rows of levels times each of DOT_OUTPUTS rows of the weight, in registers of sums."""
    count = rows * DOT_OUTPUTS // form.tile**2
    totals = [cgutils.alloca_once_value(builder, ir.Constant(form.sums, None)) for _ in range(count)]
    with cgutils.for_range(builder, builder.udiv(inputs, ir.Constant(inputs.type, form.bytes.count))) as loop:
        place = builder.mul(loop.index, ir.Constant(inputs.type, form.bytes.count))
        here, there = builder.add(levels, place), builder.add(weight, place)
        read = form.levels(builder, [_load(builder, here, (inputs, row), form.bytes) for row in range(rows)])
        matrix = [_load(builder, there, (inputs, output), form.bytes) for output in range(DOT_OUTPUTS)]
        for output in range(DOT_OUTPUTS):
            prefetch(builder, _at(builder, there, (inputs, DOT_OUTPUTS + output), BYTE))
        pairs = itertools.product(read, form.weights(builder, matrix))
        for total, (row, column) in zip(totals, pairs, strict=True):
            builder.store(form.add(builder, builder.load(total), row, column), total)
    return [builder.load(total) for total in totals]


def _dots(form: Form, rows: int) -> Function:
    """Makes dots(levels, weight, inputs, zeros, scale, target, stride) of addresses and sizes: sums of `rows` rows of
    uint8 levels times each of DOT_OUTPUTS rows of an int8 weight, all of so many inputs, a multiple of BLOCK; less
    `zeros`, times `scale`, as float32 to the target, whose rows are `stride` bytes apart."""
    together = DOT_OUTPUTS // form.tile  # registers of sums that hold a row, or a tile's two

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        levels, weight, inputs, zeros, scale, target, stride = values
        totals = _sums(builder, form, rows, levels, weight, inputs)
        less, times = _load(builder, zeros, (inputs, 0), QUAD), _load(builder, scale, (inputs, 0), FLOATS)
        groups = [totals[first : first + together] for first in range(0, len(totals), together)]
        for row, found in enumerate(one for group in groups for one in form.reduce(builder, group)):
            sums = found if form.signed else builder.sub(found, less)
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
    many, one = FORMS[instructions]
    together, dots_of_rows, dots_of_row = many.rows, _dots(many, many.rows), _dots(one, 1)

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
