"""What picks elements by their values: Compress and Unique by NonZero and Gather, and NonZero.

How many there are stays open, unless what is picked by is constant: then sizes are known before.
All that stands for NonZero is as long as there are elements, up to a Slice of what was found.
"""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, rule
from vlmpass.rewriter_rules.opset.build import (
    arange,
    cast,
    flat,
    normalized,
    part,
    scalar_at,
    size_at,
    vector,
)
from vlmpass.rewriter_rules.opset.queries import (
    attribute,
    dims,
    dtype,
    integer,
    known_or_none,
    operand,
    rank,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.unfused import spelled

__all__ = ["SELECTED"]

_D = ir.DataType
_FROM = (13, None)
_END = 2**31 - 1


def _picked(mask: ir.Value, op: Tape, node: ir.Node) -> Outputs:
    """A mask may be longer than the axis: what lies beyond it picks nothing."""
    x = operand(node, 0)
    whole, sizes = attribute(node, "axis") is None, dims(x)
    place = 0 if whole else normalized(integer(node, "axis"), rank(x))
    picked = sizes if whole or sizes is None else [sizes[place]]
    known = known_or_none(mask)
    source = flat(op, x) if whole else x
    size = _product(picked)
    if known is not None and size is not None:
        return op.Gather(source, op.const(np.flatnonzero(known[:size])), axis=place)
    if whole or not _as_long(mask, x, place):
        length = size_at(op, source, place)
        mask = op.Slice(mask, op.const(np.zeros(1, np.int64)), length)
    return op.Gather(source, flat(op, op.NonZero(mask)), axis=place)


def _product(sizes: list[int | None] | None) -> int | None:
    if sizes is None or None in sizes:
        return None
    return prod(size for size in sizes if size is not None)


def _as_long(mask: ir.Value, x: ir.Value, axis: int) -> bool:
    """Whether a mask is known to be as long as an axis."""
    if mask.shape is None or x.shape is None:
        return False
    return same_size(mask.shape[0], x.shape[axis])


@rule(P.Compress(P.any, "mask", ..., _node="node"), opset=_FROM)
def compress_to_gather(op: Tape, mask: ir.Value, node: ir.Node) -> Replacement:
    """Compress(x, c) -> Gather(x, NonZero(c)); with constant places where c is constant."""
    return spelled(partial(_picked, mask), op, node)


def _ordered(op: Tape, node: ir.Node) -> Outputs:
    """In order, a number is new where it is not the one before it."""
    given = operand(node, 0)
    if attribute(node, "axis") is not None or not integer(node, "sorted", 1):
        raise CannotConvert("it is said of single elements, in order, alone")
    if not dtype(given).is_integer():
        raise CannotConvert(f"which {dtype(given).name.lower()} are the same is not said")
    x, size = flat(op, given), _product(dims(given))
    count = op.Shape(x) if size is None else vector(op, [size])
    line, order = op.node("TopK", [x, count], {"axis": 0, "largest": 0}, outputs=2)
    before = op.Concat(part(op, line, 0, 1), part(op, line, 0, -1), axis=0)
    first = op.Equal(arange(op, scalar_at(op, count, 0)), op.const(0))
    is_new = op.Or(first, op.Not(op.Equal(line, before)))
    places = flat(op, op.NonZero(is_new))
    found = [op.Gather(each, places, axis=0) for each in (line, order)]
    number = op.Sub(op.CumSum(cast(op, is_new, _D.INT64), op.const(0)), op.const(1))
    found.append(op.ScatterElements(number, order, number, axis=0))
    found.append(op.Sub(op.Concat(part(op, places, 1, _END), count, axis=0), places))
    return found[: len(node.outputs)]


@rule(P.Unique(P.any, ..., _outputs=4, _node="node"), opset=_FROM)
def unique_to_order(op: Tape, node: ir.Node) -> Replacement:
    """Unique(x) -> Gather(s, NonZero(s[i] != s[i - 1])) of s = TopK(x), of integers."""
    return spelled(_ordered, op, node)


def _found_first(op: Tape, mask: ir.Value) -> ir.Value:
    """Record the places where a flat mask is set, in order: all places, moved in front of others.

    Each place goes to one of its own, so that nothing is written twice.
    """
    size = _product(dims(mask))
    total = scalar_at(op, op.Shape(mask), 0) if size is None else op.const(size)
    line = arange(op, total) if size is None else op.const(np.arange(size, dtype=np.int64))
    counts = op.CumSum(cast(op, mask, _D.INT64), op.const(0))
    number = op.ReduceSum(cast(op, mask, _D.INT64), vector(op, [0]), keepdims=1)
    others = op.Add(op.Sub(line, counts), number)
    goes = op.Where(mask, op.Sub(counts, op.const(1)), others)
    moved = op.ScatterElements(line, goes, line, axis=0)
    return op.Slice(moved, vector(op, [0]), number)


def _along_each(op: Tape, x: ir.Value, places: ir.Value) -> ir.Value:
    """Record flat places as one row of places along each axis."""
    rows, left, sizes = [], places, dims(x) or [None] * rank(x)
    for axis in reversed(range(rank(x))):
        size = _divisor(op, x, axis, sizes[axis]) if axis else None
        rows.append(left if size is None else op.Mod(left, size))
        left = left if size is None else op.Div(left, size)
    rows = [op.Unsqueeze(row, vector(op, [0])) for row in reversed(rows)]
    return rows[0] if len(rows) == 1 else op.Concat(*rows, axis=0)


def _divisor(op: Tape, x: ir.Value, axis: int, size: int | None) -> ir.Value:
    """Record the size of an axis, but 1 where there is nothing: runtimes divide by no 0."""
    if size is not None:
        return op.const(max(size, 1))
    return op.Max(scalar_at(op, op.Shape(x), axis), op.const(1))


def _places(op: Tape, node: ir.Node) -> Outputs:
    x = operand(node, 0)
    if rank(x) == 0 or dtype(x) is _D.STRING:
        raise CannotConvert("where a scalar or a string is set is not said")
    return _along_each(op, x, _found_first(op, flat(op, cast(op, x, _D.BOOL))))


@rule(P.NonZero(P.any, _node="node"), opset=_FROM)
def nonzero_to_scatter(op: Tape, node: ir.Node) -> Replacement:
    """NonZero(x) -> rows of Slice(ScatterElements(places, CumSum(x != 0) - 1), number that is)."""
    return spelled(_places, op, node)


SELECTED = RuleSet((compress_to_gather, unique_to_order, nonzero_to_scatter))
