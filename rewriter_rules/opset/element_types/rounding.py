"""Values rounded to a narrow element type by operators that do not know the type.

What comes out is in a wider type, and every value of it is one of the narrow type's, bit for bit
what Cast makes of the same input: ties go to even, numbers below the least normal one lie on its
grid, and what is too large becomes the largest, infinite or NaN, as `saturate` and the type say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import scalar

__all__ = ["rounded", "wrapped"]

_D = ir.DataType
_WORK = _D.FLOAT
"""What is computed in. Doubles go by it too, as weights and ONNX Runtime have them do."""

_INFINITE = frozenset({_D.FLOAT8E5M2, _D.BFLOAT16})
_UNSIGNED_ZERO = frozenset({_D.FLOAT8E4M3FNUZ, _D.FLOAT8E5M2FNUZ})
_FINITE = frozenset({_D.FLOAT4E2M1, _D.FLOAT6E2M3, _D.FLOAT6E3M2})
"""The types that have neither infinities nor NaN: they always saturate, and NaN becomes 0."""


@dataclass(frozen=True)
class _Grid:
    """The values of a floating type.

    Attributes:
        least: Exponent of the smallest normal number.
        end: Exponent of the first power of two beyond all numbers.
        digits: Binary digits after the point.
        largest: The largest number.
    """

    least: int
    end: int
    digits: int
    largest: float

    @classmethod
    def of(cls, kind: ir.DataType) -> _Grid:
        found = ml_dtypes.finfo(kind.numpy())  # type: ignore[no-untyped-call]
        return cls(found.minexp, found.maxexp, found.nmant, float(found.max))

    @property
    def step(self) -> float:
        """The smallest number above 0."""
        return math.ldexp(1.0, self.least - self.digits)


def rounded(
    op: Tape,
    x: ir.Value,
    kind: ir.DataType,
    wide: ir.DataType,
    *,
    saturate: bool = True,
    round_mode: str = "up",
) -> ir.Value:
    """Record x as Cast would round it to a floating type, in a type that holds all its values.

    Args:
        op: At opset 11 or later, or led down as far as 9; a zero has no sign below 11, where
            Round is spelled by Floor.
        x: Of any numeric type.
        kind: The floating type to round to.
        wide: The type of the result.
        saturate: As Cast has it.
        round_mode: As Cast has it, for float8e8m0.
    """
    x = _cast(op, x, _WORK)
    if kind == _D.FLOAT8E8M0:
        return _cast(op, _to_power(op, x, saturate, round_mode), wide)
    grid = _Grid.of(kind)
    step = _steps(op, x, grid)
    y = op.Mul(op.Round(op.Div(x, step)), step)
    saturate = kind in _FINITE or (saturate and kind != _D.BFLOAT16)
    if saturate or kind not in _INFINITE:  # else what overflows in the wide type does so here
        y = _bounded(op, y, grid.largest, grid.largest if saturate else math.nan)
    if kind in _UNSIGNED_ZERO:
        is_zero = op.Less(op.Abs(y), scalar(op, grid.step, _WORK))
        y = op.Where(is_zero, scalar(op, 0, _WORK), y)
    if kind in _FINITE:
        y = op.Where(op.IsNaN(y), scalar(op, 0, _WORK), y)
    return _cast(op, y, wide)


def wrapped(op: Tape, x: ir.Value, kind: ir.DataType, wide: ir.DataType) -> ir.Value:
    """Record the lowest bits of an integer, or of a float's whole part, as a narrow integer.

    Args:
        op: At opset 10 or later, or led down.
        x: Of any numeric type.
        kind: An integer type of 2 or 4 bits.
        wide: The type of the result.
    """
    bits = _cast(op, x, _D.INT64)
    span = scalar(op, 1 << kind.bitwidth, _D.INT64)
    if not kind.is_signed():
        return op.Cast(op.Mod(bits, span), to=wide)
    half = scalar(op, 1 << (kind.bitwidth - 1), _D.INT64)
    return op.Cast(op.Sub(op.Mod(op.Add(bits, half), span), half), to=wide)


def _cast(op: Tape, value: ir.Value, to: ir.DataType) -> ir.Value:
    return value if value.dtype == to else op.Cast(value, to=to)


def _steps(op: Tape, x: ir.Value, grid: _Grid) -> ir.Value:
    """Record, for each number, the distance of the values around it.

    A logarithm is not exact, so that a number next to a power of two may get the step of the other
    side. It is so close to the power that both steps round it there.
    """
    low, high = math.ldexp(1.0, grid.least), min(math.ldexp(1.0, grid.end), _LARGEST)
    exponents = range(grid.least, grid.end + 1)
    steps = [math.ldexp(1.0, each - grid.digits) for each in (grid.least, *exponents)]
    return _by_exponent(op, _within(op, op.Abs(x), low, high), grid.least, steps)


_LARGEST = float(np.finfo(np.float32).max)


def _within(op: Tape, x: ir.Value, low: float, high: float) -> ir.Value:
    """Record x between two bounds, NaN as the upper one."""
    bounds = [scalar(op, each, _WORK) for each in (low, high)]
    x = op.Where(op.Less(x, bounds[1]), x, bounds[1])
    return op.Where(op.Less(bounds[0], x), x, bounds[0])


def _by_exponent(op: Tape, x: ir.Value, least: int, table: list[float]) -> ir.Value:
    """Record the entry of a table for the binary exponent of each number, or its neighbour.

    Args:
        op: The tape.
        x: Positive numbers whose exponents the table has.
        least: The exponent that the second entry is for; the first is for one that is too low.
        table: One entry for each exponent.
    """
    exponent = op.Floor(op.Mul(op.Log(x), scalar(op, 1 / math.log(2), _WORK)))
    place = op.Cast(op.Sub(exponent, scalar(op, least - 1, _WORK)), to=_D.INT64)
    return op.Gather(op.const(np.array(table, np.float32), name="table"), place)


def _bounded(op: Tape, y: ir.Value, largest: float, beyond: float) -> ir.Value:
    """Record y, and what stands beyond the largest number on either side."""
    for end, less in ((largest, False), (-largest, True)):
        bound = scalar(op, end, _WORK)
        out = op.Less(y, bound) if less else op.Less(bound, y)
        y = op.Where(out, scalar(op, math.copysign(beyond, end), _WORK), y)
    return y


def _to_power(op: Tape, x: ir.Value, saturate: bool, round_mode: str) -> ir.Value:
    """Record the power of two that float8e8m0 has for x, which is not negative."""
    low, high = math.ldexp(1.0, -127), math.ldexp(1.0, 127)
    near = _within(op, x, low, high if saturate else _LARGEST)
    table = [math.ldexp(1.0, max(each, -127)) for each in range(-128, 128)]
    # The logarithm may be off by one next to a power of two, and of a number below 2^-126.
    power = _by_exponent(op, near, -127, [*table, math.ldexp(1.0, 127)])
    half, two = scalar(op, 0.5, _WORK), scalar(op, 2, _WORK)
    power = op.Where(op.Less(near, power), op.Mul(power, half), power)
    double = op.Mul(power, two)
    power = op.Where(op.Less(near, double), power, double)
    double = op.Mul(power, two)
    if round_mode == "up":
        power = op.Where(op.Less(power, near), double, power)
    elif round_mode == "nearest":
        middle = op.Mul(power, scalar(op, 1.5, _WORK))
        power = op.Where(op.Less(near, middle), power, double)
    none = scalar(op, math.nan, _WORK)
    if not saturate:
        power = op.Where(op.Less(scalar(op, high, _WORK), power), none, power)
        power = op.Where(op.Less(x, scalar(op, low, _WORK)), none, power)
        power = op.Where(op.Less(scalar(op, _LARGEST, _WORK), x), none, power)
    return op.Where(op.IsNaN(x), none, power)
