"""Operators that opset conversion can say in older ones, said so at any opset."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, rule
from vlmpass.rewriter_rules.opset.resampling.antialias import axis_by_axis
from vlmpass.rewriter_rules.opset.steps import einsum, elementwise, grid, movement
from vlmpass.rewriter_rules.unfuse.unfused import spelled

__all__ = ["RESPELLED", "resize_by_axis"]


@rule(P.Resize(P.any, ..., _node="node"), opset=(13, None))
def resize_by_axis(op: Tape, node: ir.Node) -> Replacement:
    """Resize(x) -> MatMul(rows, MatMul(x, columns)), or Gather where it takes the nearest."""
    return spelled(axis_by_axis, op, node)


@rule(P.GridSample(P.any, ..., _node="node"), opset=(16, None))
def grid_sample_to_gathers(op: Tape, node: ir.Node) -> Replacement:
    """GridSample(x, g) -> sums of GatherND at the neighbours of every place, by their weights."""
    return spelled(grid.grid_sample, op, node)


@rule(P.Einsum(P.any, ..., _node="node"), opset=(13, None))
def einsum_to_products(op: Tape, node: ir.Node) -> Replacement:
    """Einsum(x, y) -> MatMul(Transpose(x), Transpose(y)), one pair of operands after the other."""
    return spelled(einsum.einsum, op, node)


@rule(P.Trilu(P.any, ..., _node="node"), opset=(14, None))
def trilu_to_comparison(op: Tape, node: ir.Node) -> Replacement:
    """Trilu(x, k) -> Where(row + k <= column, x, 0)."""
    return spelled(movement.triangle, op, node)


@rule(P.Mod(P.any, ..., _node="node"), opset=(13, None))
def mod_to_rest(op: Tape, node: ir.Node) -> Replacement:
    """Mod(x, y) of integers -> x - x / y * y, plus y where its sign is another and it is not 0."""
    return spelled(elementwise.remainder, op, node)


RESPELLED = RuleSet(
    (
        resize_by_axis,
        grid_sample_to_gathers,
        einsum_to_products,
        trilu_to_comparison,
        mod_to_rest,
    )
)
