"""The kernel of an LSTM: what of it has to be done step by step. For numba: only the compiler imports this; arguments
are as in layers.py."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from transcribe.engine.cpu.constants import GATES, VECTOR
from transcribe.engine.cpu.source.simd import LOG2E, F, declare, exp2, inlined, intrinsic, kernel, minimum, row_of

INT64, INT32, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
FLOATS = ir.VectorType(FLOAT, VECTOR)
BYTES = 4  # of a float32
FAR = F(120)  # two to its power is still a float32


def _at(builder: Any, start: Any, offset: int) -> Any:
    """A pointer to the vector that begins `offset` floats after the address `start`."""
    return builder.inttoptr(builder.add(start, ir.Constant(INT64, offset * BYTES)), FLOATS.as_pointer())


def _spread(builder: Any, address: Any) -> Any:
    """A vector of the one float at the address."""
    one = builder.load(builder.inttoptr(address, FLOAT.as_pointer()), align=BYTES)
    first = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), one, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT32, VECTOR), [0] * VECTOR))


@intrinsic
def _add_product(_context: Any, _x: Any, _count: Any, _weight: Any, _given: Any, _sums: Any) -> Any:
    """Of addresses and a size: sums [GATES] = given [GATES] + x [count] times weight [count, GATES]. The sums stay in
    registers, which LLVM does not do by itself."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        x, count, weight, given, sums = values
        multiply_add = declare(builder, f"llvm.fma.v{VECTOR}f32", FLOATS, [FLOATS] * 3)
        starts = range(0, GATES, VECTOR)
        totals = [
            cgutils.alloca_once_value(builder, builder.load(_at(builder, given, start), align=BYTES))
            for start in starts
        ]
        with cgutils.for_range(builder, count) as loop:
            one = _spread(builder, builder.add(x, builder.mul(loop.index, ir.Constant(INT64, BYTES))))
            row = builder.add(weight, builder.mul(loop.index, ir.Constant(INT64, GATES * BYTES)))
            for start, total in zip(starts, totals, strict=True):
                factors = builder.load(_at(builder, row, start), align=BYTES)
                builder.store(builder.call(multiply_add, [one, factors, builder.load(total)]), total)
        for start, total in zip(starts, totals, strict=True):
            builder.store(builder.load(total), _at(builder, sums, start), align=BYTES)
        return ir.Constant(INT64, 0)

    return types.int64(*[types.int64] * 5), generate


@inlined
def _sigmoid(x: Any) -> Any:
    return F(1) / (F(1) + exp2(minimum(-x * LOG2E, FAR)))


@inlined
def _tanh(x: Any) -> Any:
    return F(2) * _sigmoid(F(2) * x) - F(1)


@kernel
def recurrence(
    task: int, frames: int, units: int, gates: int, weight: int, state: int, scratch: int, outputs: int
) -> None:
    """An LSTM's outputs [frames, units]; gates [frames, 4 · units] of the input, state [2, units], which is replaced.

    One task. weight [4 · units / GATES, units, GATES] and the rest are float32; scratch [4 · units].
    """
    hidden, cells = row_of(state, 0, units), row_of(state, 1, units)
    enter, keep, new, leave = (
        row_of(scratch, 0, units),
        row_of(scratch, 1, units),
        row_of(scratch, 2, units),
        row_of(scratch, 3, units),
    )
    for frame in range(frames):
        for first in range(0, 4 * units, GATES):
            given = gates + (frame * 4 * units + first) * BYTES
            _add_product(state, units, weight + first * units * BYTES, given, scratch + first * BYTES)
        output = row_of(outputs, frame, units)
        for unit in range(units):
            cell = _sigmoid(keep[unit]) * cells[unit] + _sigmoid(enter[unit]) * _tanh(new[unit])
            cells[unit] = cell
            output[unit] = _sigmoid(leave[unit]) * _tanh(cell)
        for unit in range(units):
            hidden[unit] = output[unit]
