"""Softmax and its kin: over one axis since opset 13, over all axes from one on before."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import exchanged, normalized
from vlmpass.rewriter_rules.opset.queries import again, integer, operand, rank
from vlmpass.rewriter_rules.opset.table import UNCHANGED, Outputs, adapter

__all__: list[str] = []


@adapter("Softmax LogSoftmax Hardmax", 11, 13, asks=True)
def flattened(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, axis=a) -> Reshape(Op(Flatten(x, axis=a), axis=-1), Shape(x)), when a is not last."""
    x, axis = operand(node, 0), integer(node, "axis", 1)
    count = None if x.shape is None else len(x.shape)
    if axis == -1 or (count is not None and normalized(axis, count) == count - 1):
        return again(op, node, axis=-1)
    (flat,) = again(op, node, [op.Flatten(x, axis=axis)], axis=-1)
    return op.Reshape(flat, op.Shape(x))


@adapter("Softmax LogSoftmax Hardmax", 13, 11)
def last_axis(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, axis=a) -> Transpose(Op(Transpose(x), axis=-1)), when a is not last."""
    x, axis = operand(node, 0), integer(node, "axis", -1)
    if axis == -1:
        return again(op, node, axis=-1)
    if normalized(axis, rank(x)) == rank(x) - 1:
        return UNCHANGED
    swap = exchanged(rank(x), normalized(axis, rank(x)), -1)
    (moved,) = again(op, node, [op.Transpose(x, perm=swap)], axis=-1)
    return op.Transpose(moved, perm=swap)
