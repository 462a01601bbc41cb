"""What opset 7 broadcasts in arithmetic alone, and products of integers before opset 9."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import cast
from vlmpass.rewriter_rules.opset.queries import again, dims, dtype, operands, rank
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


@adapter("Max Mean Min Sum", 8, 6)
def broadcast_before(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, y) -> Op(x - z, y - z), z zeros of their common shape; Sum is a chain of Add."""
    values = operands(node, len(node.inputs))
    if node.op_type == "Sum":
        return reduce(op.Add, values) if len(values) > 1 else op.Identity(values[0])
    spread = values if _of_one_shape(values) else _spread(op, values)
    if dtype(values[0]) == _D.DOUBLE and node.op_type != "Mean" and len(values) > 1:
        return _reduced(op, f"Reduce{node.op_type}", spread)
    return UNCHANGED if spread is values else again(op, node, spread)


def _of_one_shape(values: Sequence[ir.Value]) -> bool:
    """Whether values are known to be of one shape."""
    shapes = [dims(value) for value in values]
    alike = all(shape is not None and None not in shape for shape in shapes)
    return alike and shapes.count(shapes[0]) == len(shapes)


def _reduced(op: Tape, operator: str, values: Sequence[ir.Value]) -> ir.Value:
    """Record a reduction over values: ONNX Runtime has Max and Min of doubles from opset 8 on."""
    stacked = op.Concat(*(op.Unsqueeze(value, axes=[0]) for value in values), axis=0)
    return op.node(operator, [stacked], {"axes": [0], "keepdims": 0})[0]


def _spread(op: Tape, values: Sequence[ir.Value]) -> list[ir.Value]:
    """Record values as they are broadcast together; nothing is less than itself, not even NaN."""
    zero = op.Cast(op.Less(values[0], values[0]), to=dtype(values[0]))
    for value in values[1:]:
        zero = op.Add(zero, op.Cast(op.Less(value, value), to=dtype(value)))
    # Subtracting 0 keeps the sign of a zero, adding it does not.
    return [op.Sub(value, zero) for value in values]


@expansion("Expand", 8)
def spread_over_zeros(op: Tape, node: ir.Node) -> Outputs:
    """Expand(x, s) -> x - z, z zeros of shape s, tiled from one of them."""
    x, shape = operands(node, 2)
    kind, zeros = dtype(x), _zeros(op, shape)
    if kind == _D.STRING:
        raise CannotConvert("nothing broadcasts strings before opset 8", HIGHER)
    if kind == _D.BOOL:
        return op.Or(x, op.Cast(zeros, to=kind))
    wide = _D.INT32 if kind.is_integer() and kind.bitwidth < 32 else kind
    return cast(op, op.Sub(cast(op, x, wide), op.Cast(zeros, to=wide)), kind)


def _zeros(op: Tape, shape: ir.Value) -> ir.Value:
    """Record int32 zeros of a shape that asks for a known number of axes."""
    lengths = dims(shape)
    if lengths is None or lengths[0] is None:
        raise CannotConvert(f"how many axes {shape.name} asks for is not known", HIGHER)
    one = op.const(np.zeros([1] * lengths[0], np.int32))
    return op.Tile(one, shape) if lengths[0] else op.const(np.zeros([], np.int32))


@adapter("MatMul", 9, 1)
def sum_of_products(op: Tape, node: ir.Node) -> Outputs:
    """MatMul(x, y) -> ReduceSum(Unsqueeze(x) * Unsqueeze(y)), of integers.

    Modulo 2^64 and 2^32 it is the same in signed integers, for which runtimes have a sum.
    """
    x, y = operands(node, 2)
    if not dtype(x).is_integer():
        return UNCHANGED
    left, right, axis = _facing(op, x, y)
    return cast(op, _exact_sum(op, op.Mul(left, right), axis), dtype(x))


def _facing(op: Tape, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value, int]:
    """Record the rows of x against the columns of y in int64, and the axis that they share."""
    left, right = (cast(op, each, _D.INT64) for each in (x, y))
    deep = [rank(x), rank(y)]
    if rank(y) > 1:
        left, deep[0] = op.Unsqueeze(left, axes=[rank(x)]), rank(x) + 1
        if rank(x) > 1:
            right, deep[1] = op.Unsqueeze(right, axes=[rank(y) - 2]), rank(y) + 1
    return left, right, max(deep) - (2 if rank(y) > 1 else 1)


def _exact_sum(op: Tape, x: ir.Value, axis: int) -> ir.Value:
    """Record the sum of int64 along an axis, by halves: ONNX Runtime adds integers in double."""
    half = op.const(np.array(2**32, np.int64))
    high = op.Div(x, half)
    low = op.Sub(x, op.Mul(high, half))
    sums = [op.ReduceSum(part, axes=[axis], keepdims=0) for part in (high, low)]
    return op.Add(op.Mul(sums[0], half), sums[1])
