"""What opset 7 broadcasts in arithmetic alone, and products of integers before opset 9."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.queries import again, dims, dtype, operand, rank
from vlmpass.rewriter_rules.opset.table import UNCHANGED, CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType


@adapter("Max Mean Min Sum", 8, 6)
def broadcast_before(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, y) -> Op(x - z, y - z), z zeros of their common shape; Sum is a chain of Add."""
    values = [operand(node, index) for index in range(len(node.inputs))]
    if node.op_type == "Sum":
        total = values[0]
        for value in values[1:]:
            total = op.Add(total, value)
        return total if len(values) > 1 else op.Identity(total)
    shapes = [dims(value) for value in values]
    alike = all(shape is not None and None not in shape for shape in shapes)
    spread = values if alike and shapes.count(shapes[0]) == len(shapes) else _spread(op, values)
    if dtype(values[0]) == _D.DOUBLE and node.op_type != "Mean" and len(values) > 1:
        # ONNX Runtime has no kernel for these before opset 8.
        stacked = op.Concat(*(op.Unsqueeze(value, axes=[0]) for value in spread), axis=0)
        return op.node(f"Reduce{node.op_type}", [stacked], {"axes": [0], "keepdims": 0})[0]
    return UNCHANGED if spread is values else again(op, node, spread)


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
    x, shape = operand(node, 0), operand(node, 1)
    kind, lengths = dtype(x), dims(shape)
    if lengths is None or lengths[0] is None:
        raise CannotConvert(
            f"how many axes {shape.name} asks for is not known", "choose opset 8 or higher"
        )
    wide = kind
    if kind == _D.STRING:
        raise CannotConvert("nothing broadcasts strings before opset 8", "choose opset 8 or higher")
    if kind.is_integer() and kind.bitwidth < 32:
        wide = _D.INT32
    one = op.const(np.zeros([1] * lengths[0], np.int32))
    zeros = op.Tile(one, shape) if lengths[0] else op.const(np.zeros([], np.int32))
    if kind == _D.BOOL:
        return op.Or(x, op.Cast(zeros, to=kind))
    value = op.Sub(x if wide == kind else op.Cast(x, to=wide), op.Cast(zeros, to=wide))
    return value if wide == kind else op.Cast(value, to=kind)


@adapter("MatMul", 9, 1)
def sum_of_products(op: Tape, node: ir.Node) -> Outputs:
    """MatMul(x, y) -> ReduceSum(Unsqueeze(x) * Unsqueeze(y)), of integers."""
    x, y = operand(node, 0), operand(node, 1)
    kind = dtype(x)
    if not kind.is_integer():
        return UNCHANGED
    # Modulo 2^64 and 2^32 it is the same in signed integers, for which runtimes have a sum.
    left, right = (each if kind == _D.INT64 else op.Cast(each, to=_D.INT64) for each in (x, y))
    deep = [rank(x), rank(y)]
    if rank(y) > 1:
        left, deep[0] = op.Unsqueeze(left, axes=[rank(x)]), rank(x) + 1
        if rank(x) > 1:
            right, deep[1] = op.Unsqueeze(right, axes=[rank(y) - 2]), rank(y) + 1
    axis = max(deep) - (2 if rank(y) > 1 else 1)
    total = _exact_sum(op, op.Mul(left, right), axis)
    return total if kind == _D.INT64 else op.Cast(total, to=kind)


def _exact_sum(op: Tape, x: ir.Value, axis: int) -> ir.Value:
    """Record the sum of int64 along an axis, by halves: ONNX Runtime adds integers in double."""
    half = op.const(np.array(2**32, np.int64))
    high = op.Div(x, half)
    low = op.Sub(x, op.Mul(high, half))
    sums = [op.ReduceSum(part, axes=[axis], keepdims=0) for part in (high, low)]
    return op.Add(op.Mul(sums[0], half), sums[1])
