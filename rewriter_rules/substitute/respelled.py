"""Operators that opset conversion can say in older ones, said so at any opset; and Tile."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, rule
from vlmpass.rewriter_rules.opset.build import cast, flat, vector
from vlmpass.rewriter_rules.opset.queries import operands, rank
from vlmpass.rewriter_rules.opset.resampling.antialias import axis_by_axis
from vlmpass.rewriter_rules.opset.steps import einsum, elementwise, grid, movement
from vlmpass.rewriter_rules.opset.table import Outputs
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


def _tiled(op: Tape, node: ir.Node) -> Outputs:
    x, repeats = operands(node, 2)
    count, last = rank(x), vector(op, [1])
    if not count:
        return op.Identity(x)
    shape, times = op.Shape(x), cast(op, repeats, ir.DataType.INT64)
    pairs = op.Concat(op.Unsqueeze(times, last), op.Unsqueeze(shape, last), axis=1)
    spread = op.Unsqueeze(x, vector(op, range(0, 2 * count, 2)))
    return op.Reshape(op.Expand(spread, flat(op, pairs)), op.Mul(shape, times), allowzero=1)


@rule(P.Tile(P.any, ..., _node="node"), opset=(14, None))
def tile_to_expand(op: Tape, node: ir.Node) -> Replacement:
    """Tile(x, r) -> Reshape(Expand(Unsqueeze(x), r and sizes in turn), r * sizes)."""
    return spelled(_tiled, op, node)


RESPELLED = RuleSet(
    (
        tile_to_expand,
        resize_by_axis,
        grid_sample_to_gathers,
        einsum_to_products,
        trilu_to_comparison,
        mod_to_rest,
    )
)
