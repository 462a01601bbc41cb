"""Nodes that make or read values of an element type which the target does not have."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.effects import Effect, changes
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import schema, since
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.rewriter_rules.opset.element_types.absent import wider_dtype
from vlmpass.rewriter_rules.opset.element_types.rounding import rounded, wrapped
from vlmpass.rewriter_rules.opset.queries import integer, operand, text
from vlmpass.rewriter_rules.opset.steps.quantize import clipped, dequantized, divided

__all__ = ["ROUNDS", "dequantized", "reads_wide", "round_to"]

ROUNDS = changes(Effect.ROUNDS_VALUES)
"""What `round_to` does that the node did where it ran."""


def reads_wide(node: ir.Node, target: int) -> bool:
    """Say whether a node dequantises values of a type that is none of a quantised tensor's."""
    version = since(node.op_type, target)
    if node.op_type != "DequantizeLinear" or version is None:
        return False
    return spell(operand(node, 0).type) not in schema(node.op_type, version).input(0).types


def round_to(op: Tape, node: ir.Node, kind: ir.DataType, target: int) -> ir.Value:
    """Cast(x, to=kind) -> x rounded to the values of kind, in a type that the target has.

    Args:
        op: At opset 13 or later.
        node: A Cast, CastLike or QuantizeLinear whose result is to have values of a type.
        kind: The type.
        target: The opset, which does not have it.
    """
    wide = wider_dtype(kind, target)
    if node.op_type == "QuantizeLinear":
        return _quantized(op, node, kind, wide)
    x = operand(node, 0)
    if kind.is_integer():
        return wrapped(op, x, kind, wide)
    return _rounded(op, x, node, kind, wide)


def _rounded(
    op: Tape, x: ir.Value, node: ir.Node, kind: ir.DataType, wide: ir.DataType
) -> ir.Value:
    return rounded(
        op,
        x,
        kind,
        wide,
        saturate=bool(integer(node, "saturate", 1)),
        round_mode=text(node, "round_mode", "up"),
    )


def _quantized(op: Tape, node: ir.Node, kind: ir.DataType, wide: ir.DataType) -> ir.Value:
    if kind.is_integer():
        return op.Cast(clipped(op, divided(op, node), kind), to=wide)
    # The zero point of a float8 type is there to name the type; it has to be 0.
    value = divided(op, node, whole=False, shift=kind.bitwidth < 8)
    return _rounded(op, value, node, kind, wide)
