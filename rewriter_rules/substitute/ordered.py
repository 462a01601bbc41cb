"""Variants of TopK, ArgMax and ArgMin, said by those that every runtime has.

Where the first element is NaN, ONNX Runtime's ArgMax and ArgMin take it, and else none that is; its
TopK takes NaN for the greatest of all, and where NaN and infinity both are among the smallest,
their order may be another here. The standard is silent on that.
"""

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


def _without_nan(op: Tape, x: ir.Value, largest: bool) -> ir.Value:
    """Return x with an infinity, which nothing takes before another, for every NaN."""
    if not dtype(x).is_floating_point():
        return x
    least = np.array(-np.inf if largest else np.inf, dtype(x).numpy())
    return op.Where(op.IsNaN(x), op.const(least, dtype(x)), x)


def _unless_first(op: Tape, node: ir.Node, index: ir.Value) -> ir.Value:
    """Return an index of extremes, and 0 where the first element is NaN."""
    x, place = operand(node, 0), axis_of(node, 0)
    if not dtype(x).is_floating_point():
        return index
    first = op.IsNaN(op.Slice(x, vector(op, [0]), vector(op, [1]), vector(op, [place])))
    if not integer(node, "keepdims", 1):
        first = op.Squeeze(first, vector(op, [place]))
    return op.Where(first, op.const(0), index)


def _last_of_equals(op: Tape, node: ir.Node) -> Outputs:
    x, place, operator = operand(node, 0), axis_of(node, 0), node.op_type
    start, stop = vector(op, [-1]), vector(op, [np.iinfo(np.int64).min])
    turned = op.Slice(x, start, stop, vector(op, [place]), vector(op, [-1]))
    if dtype(x).is_floating_point():  # which of them are the extreme, for no NaN is
        largest = operator == "ArgMax"
        of = op.ReduceMax if largest else op.ReduceMin
        extreme = of(_without_nan(op, turned, largest), axes=[place], keepdims=1)
        turned, operator = op.Cast(op.Equal(turned, extreme), to=ir.DataType.INT32), "ArgMax"
    keep = integer(node, "keepdims", 1)
    found = op.node(operator, [turned], {"axis": place, "keepdims": keep})[0]
    last = op.Sub(scalar_at(op, op.Shape(x), place), op.const(1))
    return _unless_first(op, node, op.Sub(last, found))


@rule((P.ArgMax | P.ArgMin)(P.any, _node="node", select_last_index=1), opset=_FROM)
def last_index_to_reversed(op: Tape, node: ir.Node) -> Replacement:
    """ArgMax(x, select_last_index=1) -> n - 1 - ArgMax(x reversed)."""
    return spelled(_last_of_equals, op, node)


def _by_topk(op: Tape, node: ir.Node) -> Outputs:
    x, place = operand(node, 0), axis_of(node, 0)
    largest = node.op_type == "ArgMax"
    given = {"axis": place, "largest": int(largest)}
    operands = [_without_nan(op, x, largest), vector(op, [1])]
    index = op.node("TopK", operands, given, outputs=2)[1]
    if not integer(node, "keepdims", 1):
        index = op.Squeeze(index, vector(op, [place]))
    return _unless_first(op, node, index)


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
    axis = integer(node, "axis", -1)
    given = {"axis": axis, "sorted": integer(node, "sorted", 1), "largest": 1}
    negative = op.Neg(_without_nan(op, x, largest=False))
    indices = op.node("TopK", [negative, count], given, outputs=2)[1]
    return [op.GatherElements(x, indices, axis=axis), indices]


@rule(P.TopK(P.any, ..., _node="node", _outputs=2, largest=0), opset=_FROM)
def smallest_to_largest(op: Tape, node: ir.Node) -> Replacement:
    """TopK(x, k, largest=0) -> x at what TopK(-x, k) takes, of floats."""
    return spelled(_smallest, op, node)


ORDERED = RuleSet((last_index_to_reversed, arg_extreme_to_topk, smallest_to_largest))
