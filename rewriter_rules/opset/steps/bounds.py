"""Bounds and choices: Clip, Max, Min, Where and comparisons, by element type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import at_opset, scalar
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dtype,
    known_or_none,
    operand,
    operands,
    optional_input,
    real,
)
from vlmpass.rewriter_rules.opset.table import (
    HIGHER,
    UNCHANGED,
    CannotConvert,
    Outputs,
    adapter,
    expansion,
)

__all__: list[str] = []

_D = ir.DataType
_LARGEST = float(np.finfo(np.float32).max)


@adapter("Clip", 6, 11)
def bounds_become_inputs(op: Tape, node: ir.Node) -> Outputs:
    """Clip(x, min=a, max=b) -> Clip(x, a, b)."""
    x, ends = operand(node, 0), {"min": -_LARGEST, "max": _LARGEST}
    if not ends.keys() & node.attributes.keys() and dtype(x) != _D.DOUBLE:
        return UNCHANGED
    given = {name: real(node, name, end) for name, end in ends.items()}
    bounds = [_bound(op, value, dtype(x), name) for name, value in given.items()]
    return again(op, node, [x, *bounds], drop=("min", "max"))


def _bound(op: Tape, value: float, kind: ir.DataType, name: str) -> ir.Value | None:
    """Record a bound; none where it is the type's own end, as the old defaults are."""
    if abs(value) >= _LARGEST and kind in (_D.FLOAT16, _D.FLOAT):
        return None
    return scalar(op, value, kind, name)


_LONG = (_D.INT64, _D.UINT64)
"""Integers that no floating type holds, so that comparing is all that older operators offer."""


@adapter("Clip", 12, 11)
def between_bounds(op: Tape, node: ir.Node) -> Outputs:
    """Clip(x, a, b) -> Min(Max(x, a), b), where x is an integer or double."""
    found, low, high = operand(node, 0), optional_input(node, 1), optional_input(node, 2)
    # Of the kernels of Clip before 12, ONNX Runtime has the one of float alone.
    if dtype(found) in (_D.FLOAT, _D.FLOAT16, _D.BFLOAT16):
        return UNCHANGED
    at_opset(op, 12)
    found = found if low is None else op.Max(found, low)
    found = found if high is None else op.Min(found, high)
    return op.Identity(found) if low is None and high is None else found


@adapter("Relu", 14, 13)
def positive_integers(op: Tape, node: ir.Node) -> Outputs:
    """Relu(x) -> Where(x < 0, 0, x), of integers of 64 bits."""
    x = operand(node, 0)
    if dtype(x) not in _LONG:
        return UNCHANGED
    zero = op.const(np.array(0, np.int64))
    return op.Where(op.Less(x, zero), zero, x)


@adapter("Less Greater", 9, 7)
def long_by_halves(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, y) of int64 -> Or(Op(h, k), And(h == k, Op(l, m))), x = 2^32 h + l, y = 2^32 k + m.

    Each half is exact in double, the widest type that is compared there.
    """
    if dtype(operand(node, 0)) not in _LONG:
        return UNCHANGED
    high, low = _halves(op, operands(node, 2))
    first, second = (
        op.node(node.op_type, [op.Cast(part, to=_D.DOUBLE) for part in parts])[0]
        for parts in (high, low)
    )
    same = op.Equal(*(op.Cast(part, to=_D.INT64) for part in high))
    return op.Or(first, op.And(same, second))


def _halves(op: Tape, values: Sequence[ir.Value]) -> tuple[list[ir.Value], list[ir.Value]]:
    """Record the upper and the lower 32 bits of integers of 64."""
    half = op.const(np.array(2**32, dtype(values[0]).numpy()))
    high = [op.Div(value, half) for value in values]
    return high, [op.Sub(v, op.Mul(h, half)) for v, h in zip(values, high, strict=True)]


@adapter("Clip", 11, 6)
def bounds_become_attributes(op: Tape, node: ir.Node) -> Outputs:
    """Clip(x, a, b) -> Clip(x, min=a, max=b), by Max and Min if they vary."""
    x, low, high = operand(node, 0), optional_input(node, 1), optional_input(node, 2)
    if dtype(x) != _D.DOUBLE and (limits := _limits(low, high)) is not None:
        return again(op, node, [x], min=limits[0], max=limits[1])
    value = x if low is None else op.Max(x, low)
    return value if high is None else op.Min(value, high)


def _limits(*bounds: ir.Value | None) -> list[float | None] | None:
    """Return bounds as float attributes say them; None if one varies, or is not exact or in order.

    A bound that is left out is None.
    """
    fixed = [known_or_none(bound) for bound in bounds]
    if any(each is None and bound is not None for each, bound in zip(fixed, bounds, strict=True)):
        return None
    numbers = [None if each is None else each.reshape(-1)[0] for each in fixed]
    exact = all(each is None or float(np.float32(each)) == float(each) for each in numbers)
    limits = [None if each is None else float(each) for each in numbers]
    given = [each for each in limits if each is not None]
    return limits if exact and given == sorted(given) else None


@adapter("Max Min", 12, 8)
def greater_integers(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, y) -> Where(Less(x, y), one, the other), of integers."""
    if not dtype(operand(node, 0)).is_integer():
        return UNCHANGED
    found = operand(node, 0)
    for index in range(1, len(node.inputs)):
        other = operand(node, index)
        pair = (other, found) if node.op_type == "Max" else (found, other)
        found = _chosen(op, op.Less(found, other), *pair)
    return op.Identity(found) if len(node.inputs) == 1 else found


_WITHOUT_KERNEL = (_D.UINT64, _D.UINT16, _D.INT16)
"""Integers that ONNX Runtime has no Where for."""


def _chosen(op: Tape, condition: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    return (
        _summed(op, condition, x, y) if dtype(x) in _WITHOUT_KERNEL else op.Where(condition, x, y)
    )


@expansion("Where", 9)
def chosen_by_product(op: Tape, node: ir.Node) -> Outputs:
    """Where(c, x, y) -> Cast(c) * x + Cast(Not(c)) * y, of integers and booleans."""
    condition, x, y = operands(node, 3)
    if dtype(x) == _D.BOOL:
        return op.Or(op.And(condition, x), op.And(op.Not(condition), y))
    if not dtype(x).is_integer():
        raise CannotConvert(
            "below opset 9 nothing chooses between values that may not be finite", HIGHER
        )
    return _summed(op, condition, x, y)


def _summed(op: Tape, condition: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Record the sum of two integers, each times 1 where it is chosen and 0 elsewhere."""
    kind = dtype(x)
    wide = kind if kind.bitwidth >= 32 else _D.INT32
    parts = [op.Cast(each, to=wide) if wide != kind else each for each in (x, y)]
    flags = [op.Cast(each, to=wide) for each in (condition, op.Not(condition))]
    total = op.Add(*(op.Mul(*pair) for pair in zip(flags, parts, strict=True)))
    return op.Cast(total, to=kind) if wide != kind else total
