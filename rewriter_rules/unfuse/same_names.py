"""Operators that ONNX Runtime had before the standard, said by the standard's."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import vector
from vlmpass.rewriter_rules.opset.queries import dtype, operand, optional_input
from vlmpass.rewriter_rules.opset.table import Outputs
from vlmpass.rewriter_rules.unfuse.unfused import unfused

__all__ = ["SAME_NAMES"]


@unfused("Trilu", opset=(14, None))
def unfuse_trilu(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::Trilu(x, k) -> Trilu(x, k)."""
    return op.node("Trilu", node.inputs, node.attributes)[0]


@unfused("Unique", outputs=3)
def unfuse_unique(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::Unique(x) -> Unique(x, sorted=0)."""
    found = op.node("Unique", node.inputs, {"sorted": 0}, outputs=4)
    return [found[0], found[2], found[3]]


@unfused("ExpandDims")
def unfuse_expand_dims(op: Tape, node: ir.Node) -> Outputs:
    """ExpandDims(x, a) -> Unsqueeze(x, a)."""
    axis = op.Cast(op.Reshape(operand(node, 1), vector(op, [1])), to=ir.DataType.INT64)
    return op.node("Unsqueeze", [operand(node, 0), axis])[0]


@unfused("GatherND")
def unfuse_gather_nd(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::GatherND(x, i) -> GatherND(x, i)."""
    index = op.Cast(operand(node, 1), to=ir.DataType.INT64)
    return op.GatherND(operand(node, 0), index)


@unfused("Pad")
def unfuse_pad(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::Pad(x, p, v) -> Pad(x, p, v)."""
    pads, value = op.Reshape(operand(node, 1), vector(op, [-1])), optional_input(node, 2)
    value = None if value is None else op.Squeeze(op.Reshape(value, vector(op, [1])), axes=[0])
    return op.node("Pad", [operand(node, 0), pads, value], node.attributes)[0]


@unfused("Range")
def unfuse_range(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::Range(a, b, s) -> Range(a, b, s)."""
    start, end, step = (optional_input(node, index) for index in range(3))
    if step is None:
        assert start is not None
        step = op.Cast(op.const(1), to=dtype(start))
    parts = [each if each is None else _scalar(op, each) for each in (start, end, step)]
    return op.node("Range", parts)[0]


def _scalar(op: Tape, x: ir.Value) -> ir.Value:
    return op.Reshape(x, vector(op, []))


SAME_NAMES = (
    unfuse_trilu + unfuse_unique + unfuse_expand_dims + unfuse_gather_nd + unfuse_pad + unfuse_range
)
