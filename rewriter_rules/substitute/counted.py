"""Operators that count places, said by comparing places: CumSum, OneHot, EyeLike, Range."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, rule
from vlmpass.rewriter_rules.opset.build import (
    along,
    arange,
    blank,
    cast,
    normalized,
    scalar,
    scalar_at,
    vector,
)
from vlmpass.rewriter_rules.opset.queries import (
    dims,
    dtype,
    integer,
    known_or_none,
    operand,
    operands,
    rank,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.unfused import spelled

__all__ = ["COUNTED"]

_D = ir.DataType
_FROM = (13, None)


def _places(op: Tape, x: ir.Value, axis: int) -> ir.Value:
    """Record 0, 1, 2 and so on up to the size of an axis, in advance where that is known."""
    size = (dims(x) or [None] * rank(x))[axis]
    if size is not None:
        return op.const(np.arange(size, dtype=np.int64), name="places")
    return arange(op, scalar_at(op, op.Shape(x), axis))


def _sums_so_far(op: Tape, node: ir.Node) -> Outputs:
    x, axis = operands(node, 2)
    at = known_or_none(axis)
    if at is None:
        raise CannotConvert("its axis is known at run time only", "fix the axis")
    place = normalized(int(at.reshape(-1)[0]), rank(x))
    line = _places(op, x, place)
    mine, other = along(op, line, place, rank(x) + 1), along(op, line, place + 1, rank(x) + 1)
    before, after = (mine, other) if integer(node, "reverse") else (other, mine)
    exclusive = bool(integer(node, "exclusive"))
    counts = op.Less(before, after) if exclusive else op.Not(op.Less(after, before))
    kept = op.Where(counts, op.Unsqueeze(x, vector(op, [place])), blank(op, dtype(x)))
    return op.ReduceSum(kept, vector(op, [place + 1]), keepdims=0)


@rule(P.CumSum(P.any, ..., _node="node"), opset=_FROM)
def cumsum_to_sums(op: Tape, node: ir.Node) -> Replacement:
    """CumSum(x, a) -> ReduceSum(Where(j <= i, Unsqueeze(x), 0)), when the axis is constant."""
    return spelled(_sums_so_far, op, node)


def _one_hot(op: Tape, node: ir.Node) -> Outputs:
    given, depth, values = operands(node, 3)
    if not dtype(given).is_integer():
        raise CannotConvert(f"how indices of type {dtype(given).name.lower()} round is not said")
    count = rank(given) + 1
    place = normalized(integer(node, "axis", -1), count)
    size = op.Reshape(cast(op, depth, _D.INT64), op.const(np.zeros(0, np.int64)))
    indices = cast(op, given, _D.INT64)
    counted = op.Where(op.Less(indices, op.const(0)), op.Add(indices, size), indices)
    hot = op.Equal(
        op.Unsqueeze(counted, vector(op, [place])), along(op, arange(op, size), place, count)
    )
    off, on = (scalar_at(op, values, index) for index in (0, 1))
    return op.Where(hot, on, off)


@rule(P.OneHot(P.any, ..., _node="node"), opset=_FROM)
def one_hot_to_comparison(op: Tape, node: ir.Node) -> Replacement:
    """OneHot(i, depth, [off, on]) -> Where(Unsqueeze(i) == Range(depth), on, off)."""
    return spelled(_one_hot, op, node)


def _eye_like(op: Tape, node: ir.Node) -> Outputs:
    x = operand(node, 0)
    row, column = (along(op, _places(op, x, axis), axis, 2) for axis in (0, 1))
    shift = integer(node, "k")
    moved = op.Add(row, op.const(shift)) if shift else row
    kind = _D(integer(node, "dtype", dtype(x).value))
    return cast(op, op.Equal(moved, column), kind)


@rule(P.EyeLike(P.any, _node="node"), opset=_FROM)
def eye_like_to_comparison(op: Tape, node: ir.Node) -> Replacement:
    """EyeLike(x, k) -> Cast(row + k == column)."""
    return spelled(_eye_like, op, node)


def _range(op: Tape, node: ir.Node) -> Outputs:
    kind = dtype(operand(node, 0))
    if not kind.is_integer():
        raise CannotConvert("its sums of floats would be rounded in another order")
    if any(each.shape is not None and len(each.shape) for each in operands(node, 3)):
        raise CannotConvert("its operands are no scalars, as the standard has them")
    start, limit, delta = (cast(op, each, _D.INT64) for each in operands(node, 3))
    zero = scalar(op, 0, _D.INT64)
    steps = op.Div(op.Sub(op.Add(op.Sub(limit, start), delta), op.Sign(delta)), delta)
    count = op.Unsqueeze(op.Max(steps, zero), vector(op, [0]))
    ones = op.ConstantOfShape(count, value=ir.tensor(np.ones(1, np.int64)))
    index = op.Squeeze(op.NonZero(ones), vector(op, [0]))
    known = known_or_none(delta)
    scaled = index if known is not None and known == 1 else op.Mul(index, delta)
    return cast(op, op.Add(scaled, start), kind)


@rule(P.Range(P.any, ..., _node="node"), opset=_FROM)
def range_to_places(op: Tape, node: ir.Node) -> Replacement:
    """Range(a, b, d) of integers -> a + d * NonZero(ConstantOfShape(count))."""
    return spelled(_range, op, node)


COUNTED = RuleSet((cumsum_to_sums, one_hot_to_comparison, eye_like_to_comparison, range_to_places))
