"""Bounds and choices: Clip, Max, Min, Where and comparisons, by element type."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import at_opset, scalar
from vlmpass.rewriter_rules.opset.queries import (
    again,
    attribute,
    dtype,
    known_or_none,
    operand,
    optional_input,
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
    x = operand(node, 0)
    low, high = attribute(node, "min"), attribute(node, "max")
    if low is None and high is None:
        low_value, high_value = -_LARGEST, _LARGEST
        if dtype(x) != _D.DOUBLE:
            return UNCHANGED
    else:
        low_value = -_LARGEST if low is None else low.as_float()
        high_value = _LARGEST if high is None else high.as_float()
    bounds = [_bound(op, low_value, dtype(x), "min"), _bound(op, high_value, dtype(x), "max")]
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
    """Op(x, y) of int64 -> Or(Op(h, k), And(h == k, Op(l, m))), x = 2^32 h + l, y = 2^32 k + m."""
    kind = dtype(operand(node, 0))
    if kind not in _LONG:
        return UNCHANGED
    half = op.const(np.array(2**32, kind.numpy()))
    high = [op.Div(operand(node, index), half) for index in range(2)]
    low = [op.Sub(operand(node, i), op.Mul(h, half)) for i, h in enumerate(high)]
    # Each half is exact in double, the widest type that is compared there.
    first, second = (
        op.node(node.op_type, [op.Cast(part, to=_D.DOUBLE) for part in parts])[0]
        for parts in (high, low)
    )
    same = op.Equal(*(op.Cast(part, to=_D.INT64) for part in high))
    return op.Or(first, op.And(same, second))


@adapter("Clip", 11, 6)
def bounds_become_attributes(op: Tape, node: ir.Node) -> Outputs:
    """Clip(x, a, b) -> Clip(x, min=a, max=b), by Max and Min if they vary."""
    x, low, high = operand(node, 0), optional_input(node, 1), optional_input(node, 2)
    bounds = [known_or_none(low), known_or_none(high)]
    given = [value for value in (low, high) if value is not None]
    exact = all(
        each is None or float(np.float32(each.reshape(-1)[0])) == float(each.reshape(-1)[0])
        for each in bounds
    )
    limits = [float(each.reshape(-1)[0]) for each in bounds if each is not None]
    ordered = limits == sorted(limits)
    if (
        dtype(x) != _D.DOUBLE
        and exact
        and len(given) == sum(b is not None for b in bounds)
        and ordered
    ):
        low_value, high_value = (None if b is None else float(b.reshape(-1)[0]) for b in bounds)
        return again(op, node, [x], min=low_value, max=high_value)
    value = x if low is None else op.Max(x, low)
    return value if high is None else op.Min(value, high)


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
    condition, x, y = (operand(node, index) for index in range(3))
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
