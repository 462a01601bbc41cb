"""Variants of TopK, ArgMax and ArgMin, said by those that every runtime has."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.opset.build import axis_of, scalar_at, vector
from vlmpass.rewriter_rules.opset.queries import dtype, integer, operand, operands
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.unfused import spelled

__all__ = ["ORDERED"]

_FROM = (13, None)


def _last_of_equals(op: Tape, node: ir.Node) -> Outputs:
    x = operand(node, 0)
    place = axis_of(node, 0)
    start, stop = vector(op, [-1]), vector(op, [np.iinfo(np.int64).min])
    turned = op.Slice(x, start, stop, vector(op, [place]), vector(op, [-1]))
    keep = integer(node, "keepdims", 1)
    found = op.node(node.op_type, [turned], {"axis": place, "keepdims": keep})[0]
    last = op.Sub(scalar_at(op, op.Shape(x), place), op.const(1))
    return op.Sub(last, found)


@rule((P.ArgMax | P.ArgMin)(P.any, _node="node", select_last_index=1), opset=_FROM)
def last_index_to_reversed(op: Tape, node: ir.Node) -> Replacement:
    """ArgMax(x, select_last_index=1) -> n - 1 - ArgMax(x reversed)."""
    return spelled(_last_of_equals, op, node)


def _by_topk(op: Tape, node: ir.Node) -> Outputs:
    x, place = operand(node, 0), axis_of(node, 0)
    largest = int(node.op_type == "ArgMax")
    given = {"axis": place, "largest": largest}
    index = op.node("TopK", [x, vector(op, [1])], given, outputs=2)[1]
    return index if integer(node, "keepdims", 1) else op.Squeeze(index, vector(op, [place]))


@rule((P.ArgMax | P.ArgMin)(P.any, _node="node"), opset=_FROM)
def arg_extreme_to_topk(op: Tape, node: ir.Node) -> Replacement:
    """ArgMax(x) -> TopK(x, 1), when the first of equal elements is wanted."""
    if integer(node, "select_last_index"):
        return refuse("the last of equal elements is wanted")
    return spelled(_by_topk, op, node)


def _smallest(op: Tape, node: ir.Node) -> Outputs:
    x, count = operands(node, 2)
    if not dtype(x).is_floating_point():
        raise CannotConvert("the smallest integer has no negative")
    given = {"axis": integer(node, "axis", -1), "sorted": integer(node, "sorted", 1)}
    values, indices = op.node("TopK", [op.Neg(x), count], {**given, "largest": 1}, outputs=2)
    return [op.Neg(values), indices]


@rule(P.TopK(P.any, ..., _node="node", _outputs=2, largest=0), opset=_FROM)
def smallest_to_largest(op: Tape, node: ir.Node) -> Replacement:
    """TopK(x, k, largest=0) -> -TopK(-x, k), of floats."""
    return spelled(_smallest, op, node)


ORDERED = RuleSet((last_index_to_reversed, arg_extreme_to_topk, smallest_to_largest))
