"""EmbedLayerNormalization: rows of tables added up and normalised."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import arange, scalar, scalar_at, size_at, vector
from vlmpass.rewriter_rules.opset.queries import dtype, operand, optional_input, real, used
from vlmpass.rewriter_rules.opset.table import Outputs
from vlmpass.rewriter_rules.unfuse.unfused import floats, layer_norm, unfused

__all__ = ["EMBEDDED"]


@unfused("EmbedLayerNormalization", outputs=3)
def unfuse_embed_layer_normalization(op: Tape, node: ir.Node) -> Outputs:
    """EmbedLayerNormalization(i, j, w, p, s, g) -> LayerNormalization(w[i] + p[n] + s[j], g).

    Where no segments are given but a table of them, all are of its first row.
    """
    floats(node, 2, 3, 4, 5, 6)
    ids, segments, kinds = (optional_input(node, index) for index in (0, 1, 4))
    total = op.Add(op.Gather(operand(node, 2), ids), _places(op, node))
    if kinds is not None:
        total = op.Add(total, op.Gather(kinds, op.const(0) if segments is None else segments))
    epsilon = real(node, "epsilon", 1e-12)
    normal = layer_norm(op, total, operand(node, 5), operand(node, 6), epsilon)
    return [normal, _lengths(op, node) if used(node, 1) else None, total]


def _places(op: Tape, node: ir.Node) -> ir.Value:
    """Record the rows of the positions that are given, or of 0, 1, 2 and so on."""
    given, table = optional_input(node, 8), operand(node, 3)
    if given is not None:
        return op.Gather(table, given)
    return op.Gather(table, arange(op, scalar_at(op, op.Shape(operand(node, 0)), 1)))


def _lengths(op: Tape, node: ir.Node) -> ir.Value:
    """Record how many tokens of each row the mask says 1 of; 0 where there is none."""
    mask = optional_input(node, 7)
    if mask is not None:
        ones = op.Equal(mask, scalar(op, 1, dtype(mask), "one"))
        return op.ReduceSum(op.Cast(ones, to=ir.DataType.INT32), vector(op, [1]), keepdims=0)
    zero = ir.tensor([0], dtype=ir.DataType.INT32)
    return op.ConstantOfShape(size_at(op, operand(node, 0), 0), value=zero)


@unfused("QEmbedLayerNormalization", outputs=2)
def unfuse_q_embed_layer_normalization(op: Tape, node: ir.Node) -> Outputs:
    """QEmbedLayerNormalization(i, j, w, p, s, g) -> EmbedLayerNormalization of what they stand for.

    What is looked up is made floats, not the tables.
    """
    ids, segments = operand(node, 0), optional_input(node, 1)
    places = arange(op, scalar_at(op, op.Shape(ids), 1))
    total = op.Add(_real(op, node, 2, ids), _real(op, node, 3, places))
    if segments is not None:
        total = op.Add(total, _real(op, node, 4, segments))
    epsilon = real(node, "epsilon", 1e-12)
    normal = layer_norm(op, total, _real(op, node, 5), _real(op, node, 6), epsilon)
    return [normal, _lengths(op, node) if used(node, 1) else None]


def _real(op: Tape, node: ir.Node, index: int, rows: ir.Value | None = None) -> ir.Value:
    """Record what a table's numbers stand for, or some of its rows."""
    numbers = operand(node, index)
    looked_up = numbers if rows is None else op.Gather(numbers, rows)
    return op.DequantizeLinear(looked_up, operand(node, index + 6), operand(node, index + 11))


EMBEDDED = unfuse_embed_layer_normalization + unfuse_q_embed_layer_normalization
