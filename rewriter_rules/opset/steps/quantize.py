"""Quantisation: per tensor, per axis, per block; and the types on either side."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import schema
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.rewriter_rules.opset.build import (
    along,
    blank,
    cast,
    normalized,
    scalar,
    size_at,
    sizes_of,
    vector,
    without,
)
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dtype,
    integer,
    operand,
    operands,
    optional_input,
    rank,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, Outputs, adapter, expansion

__all__ = ["clipped", "dequantized", "divided"]

_D = ir.DataType


def _admits(operator: str, version: int, index: int, kind: ir.DataType) -> bool:
    return spell(ir.TensorType(kind)) in schema(operator, version).input(index).types


def _spread(op: Tape, value: ir.Value, x: ir.Value, axis: int, block: int) -> ir.Value:
    """Record a scale or zero point so that it broadcasts against x."""
    if block:
        count = rank(x)
        last = axis + 1
        wide = op.Unsqueeze(value, vector(op, [last]))
        shape = op.Shape(wide)
        ones = np.ones(count + 1, np.int64)
        ones[last] = block
        tiled = op.Expand(wide, op.Max(shape, op.const(ones)))
        lead = sizes_of(op, x, 0, axis)
        merged = op.Concat(lead, vector(op, [-1]), sizes_of(op, x, last, count), axis=0)
        whole = op.Reshape(tiled, merged)
        return op.Slice(whole, vector(op, [0]), size_at(op, x, axis), vector(op, [axis]))
    return value if rank(value) == 0 else along(op, value, axis, rank(x))


def _axis(node: ir.Node, x: ir.Value, scale: ir.Value) -> int:
    """Return the axis of quantisation; 0 where there is none."""
    if rank(scale) == 0 or (rank(x) == 1 and not integer(node, "block_size")):
        return 0
    return normalized(integer(node, "axis", 1), rank(x))


def dequantized(op: Tape, node: ir.Node) -> ir.Value:
    """Record (x - z) * s in float32, and as the type that a DequantizeLinear gives."""
    x, scale, zero = operand(node, 0), operand(node, 1), optional_input(node, 2)
    axis, block = _axis(node, x, scale), integer(node, "block_size")
    kind = _D(integer(node, "output_dtype") or dtype(scale).value)
    wide = cast(op, x, _D.FLOAT)
    factor = _spread(op, cast(op, scale, _D.FLOAT), wide, axis, block)
    if zero is not None:
        wide = op.Sub(wide, _spread(op, cast(op, zero, _D.FLOAT), wide, axis, block))
    return cast(op, op.Mul(wide, factor), kind)


@adapter("DequantizeLinear", 23, 21)
def output_of_scale_type(op: Tape, node: ir.Node) -> Outputs:
    """DequantizeLinear(x, s, output_dtype=t) -> DequantizeLinear(x, Cast(s, to=t))."""
    asked = integer(node, "output_dtype")
    if not asked:
        return without(op, node, "output_dtype")
    scale = cast(op, operand(node, 1), _D(asked))
    return again(op, node, [node.inputs[0], scale, *node.inputs[2:]], drop=("output_dtype",))


@adapter("DequantizeLinear", 21, 19)
def dequantize_blocks(op: Tape, node: ir.Node) -> Outputs:
    """DequantizeLinear(x, s, z, block_size=b) -> (x - spread(z)) * spread(s)."""
    x, block = operand(node, 0), integer(node, "block_size")
    if block or not _admits("DequantizeLinear", 19, 0, dtype(x)):
        return dequantized(op, node)
    return without(op, node, "block_size")


@adapter("DequantizeLinear", 19, 13)
def dequantize_to_float(op: Tape, node: ir.Node) -> Outputs:
    """DequantizeLinear(x, s) -> Cast(DequantizeLinear(x, Cast(s, to=float)))."""
    x, scale = operands(node, 2)
    if not _admits("DequantizeLinear", 13, 0, dtype(x)):
        return dequantized(op, node)
    if dtype(scale) == _D.FLOAT:
        return UNCHANGED
    (value,) = again(op, node, [x, op.Cast(scale, to=_D.FLOAT), *node.inputs[2:]])
    value.type = ir.TensorType(_D.FLOAT)
    return op.Cast(value, to=dtype(scale))


@adapter("DequantizeLinear", 13, 10)
def dequantize_axis(op: Tape, node: ir.Node) -> Outputs:
    """DequantizeLinear(x, s, z, axis=a) -> (x - z) * s, when s is not a scalar."""
    return dequantized(op, node) if rank(operand(node, 1)) else without(op, node, "axis")


@expansion("DequantizeLinear", 10)
def dequantize(op: Tape, node: ir.Node) -> Outputs:
    """DequantizeLinear(x, s, z) -> (x - z) * s."""
    return dequantized(op, node)


def divided(op: Tape, node: ir.Node, *, whole: bool = True, shift: bool = True) -> ir.Value:
    """Record x / s in float32.

    Args:
        op: The tape.
        node: A QuantizeLinear.
        whole: Whether it is rounded to whole numbers.
        shift: Whether the zero point is added then.
    """
    x, scale, zero = operand(node, 0), operand(node, 1), optional_input(node, 2)
    axis, block = _axis(node, x, scale), integer(node, "block_size")
    factor = _spread(op, cast(op, scale, _D.FLOAT), x, axis, block)
    value = op.Div(cast(op, x, _D.FLOAT), factor)
    value = op.Round(value) if whole else value
    if zero is None or not shift:
        return value
    return op.Add(value, _spread(op, cast(op, zero, _D.FLOAT), x, axis, block))


def clipped(op: Tape, value: ir.Value, kind: ir.DataType) -> ir.Value:
    """Record float32 values between the ends of an integer type.

    Args:
        op: The tape.
        value: A float32 tensor.
        kind: The integer type.
    """
    ends = ml_dtypes.iinfo(kind.numpy())  # type: ignore[no-untyped-call]
    return op.Clip(value, *(scalar(op, int(end), _D.FLOAT) for end in (ends.min, ends.max)))


def _quantized(op: Tape, node: ir.Node, kind: ir.DataType) -> ir.Value:
    """Record Cast(Clip(Round(x / s) + z)) in float32; Cast(x / s) to a floating type."""
    if kind.is_floating_point():
        value = divided(op, node, whole=False, shift=False)
        return op.Cast(value, to=kind, saturate=integer(node, "saturate", 1))
    return op.Cast(clipped(op, divided(op, node), kind), to=kind)


def _quantized_type(node: ir.Node) -> ir.DataType:
    zero = optional_input(node, 2)
    asked = integer(node, "output_dtype")
    return dtype(zero) if zero is not None else _D(asked) if asked else _D.UINT8


@adapter("QuantizeLinear", 23, 21)
def divide_in_one_type(op: Tape, node: ir.Node) -> Outputs:
    """QuantizeLinear(x, s, precision=t) -> QuantizeLinear(Cast(x, to=t), Cast(s, to=t))."""
    x, scale = operands(node, 2)
    kind = _D(integer(node, "precision") or dtype(scale).value)
    if dtype(x) == dtype(scale) == kind:
        return without(op, node, "precision")
    inputs = [cast(op, x, kind), cast(op, scale, kind), *node.inputs[2:]]
    return again(op, node, inputs, drop=("precision",))


@adapter("QuantizeLinear", 21, 19)
def quantize_blocks(op: Tape, node: ir.Node) -> Outputs:
    """QuantizeLinear(x, s, z, block_size=b) -> Cast(Clip(Round(x / spread(s)) + spread(z)))."""
    kind = _quantized_type(node)
    if integer(node, "block_size") or not _admits("QuantizeLinear", 19, 2, kind):
        return _quantized(op, node, kind)
    if optional_input(node, 2) is not None or kind == _D.UINT8:
        return without(op, node, "block_size", "output_dtype")
    scale, zero = operand(node, 1), blank(op, kind)
    inputs = [*node.inputs[:2], op.Expand(zero, op.Shape(scale)) if rank(scale) else zero]
    return again(op, node, inputs, drop=("block_size", "output_dtype"))


@adapter("QuantizeLinear", 19, 13)
def quantize_from_float(op: Tape, node: ir.Node) -> Outputs:
    """QuantizeLinear(x, s) -> QuantizeLinear(Cast(x, to=float), Cast(s, to=float))."""
    x, scale = operands(node, 2)
    if dtype(scale) == _D.FLOAT:
        return without(op, node, "saturate")
    inputs = [cast(op, x, _D.FLOAT), op.Cast(scale, to=_D.FLOAT), *node.inputs[2:]]
    return again(op, node, inputs, drop=("saturate",))


@adapter("QuantizeLinear", 13, 10)
def quantize_axis(op: Tape, node: ir.Node) -> Outputs:
    """QuantizeLinear(x, s, z, axis=a) -> Cast(Clip(Round(x / s) + z)), when s is not a scalar."""
    if rank(operand(node, 1)) == 0:
        return without(op, node, "axis")
    return _quantized(op, node, _quantized_type(node))


@expansion("QuantizeLinear", 10, opset=12)
def quantize(op: Tape, node: ir.Node) -> Outputs:
    """QuantizeLinear(x, s, z) -> Cast(Clip(Round(x / s) + z))."""
    return _quantized(op, node, _quantized_type(node))
