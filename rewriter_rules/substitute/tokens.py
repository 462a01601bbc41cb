"""Values put where a mask is set, as image tokens are merged into text, without NonZero.

``masked_scatter`` and ``embeds[mask] = features`` export as NonZero and ScatterND, of shapes that
only the values decide. The row that goes to a place is the one whose number is how many places up
to it are set, so that CumSum, Gather and Where say the same, bit for bit, in shapes known before.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.opset.build import blank, cast, flat, part, vector
from vlmpass.rewriter_rules.opset.queries import dims, dtype, known_or_none, rank

__all__ = ["TOKENS", "put_where"]

_D = ir.DataType


def put_where(op: Tape, x: ir.Value, mask: ir.Value, rows: ir.Value, count: int) -> ir.Value:
    """Record x with the places where a mask is set taken by rows, in order.

    Args:
        op: The tape; its nodes are valid from opset 13 on.
        x: A tensor of known rank.
        mask: Of the sizes of x's first axes, of any type.
        rows: As many rows as places are set or more, each of the sizes of x's other axes.
        count: How many axes the mask has.

    Raises:
        CannotConvert: The rank or the element type of x is not known.
    """
    trailing = rank(x) - count
    is_set = cast(op, mask, _D.BOOL)
    counts = op.CumSum(flat(op, cast(op, is_set, _D.INT64)), op.const(0))
    number = op.Reshape(counts, op.Shape(mask))
    if (dims(rows) or [None])[0]:  # one row at least, which stands in where nothing is set yet
        number = op.Max(op.Sub(number, op.const(1)), op.const(0))
    else:
        rows = op.Concat(_blank_row(op, x, rows), rows, axis=0)
    taken = op.Gather(rows, number, axis=0)
    if trailing:
        is_set = op.Unsqueeze(is_set, vector(op, range(-trailing, 0)))
    return op.Where(is_set, taken, x)


def _blank_row(op: Tape, x: ir.Value, rows: ir.Value) -> ir.Value:
    kind = dtype(x)
    if rows.shape is not None and len(rows.shape) == 1:
        return op.const(np.zeros(1, kind.numpy()), kind)
    sizes = op.Concat(vector(op, [1]), part(op, op.Shape(rows), 1, 2**31 - 1), axis=0)
    return op.Expand(blank(op, kind), sizes)


def _axes_covered(mask: ir.Value, x: ir.Value) -> int | None:
    """Return how many of x's first axes have the sizes of a mask; None if it may be otherwise."""
    if x.shape is None:
        return None
    maker = mask.producer()
    if maker is not None and maker.op_type == "Expand" and maker.inputs[1] is not None:
        sizes = maker.inputs[1].producer()
        if sizes is not None and sizes.op_type == "Shape" and sizes.inputs[0] is x:
            return None if sizes.attributes else len(x.shape)
    if mask.shape is None or len(mask.shape) > len(x.shape):
        return None
    pairs = zip(mask.shape, x.shape, strict=False)
    return len(mask.shape) if all(a == b and _is_said(a) for a, b in pairs) else None


def _is_said(size: int | ir.SymbolicDim) -> bool:
    return isinstance(size, int) or size.value is not None


_REARRANGING = ("Reshape", "Squeeze", "Unsqueeze")


def _counts(value: ir.Value | None, index: ir.Value) -> bool:
    """Whether a value is how many rows an index has, in any number of axes of size 1."""
    node = None if value is None else value.producer()
    while node is not None and node.domain == "" and node.op_type in _REARRANGING:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.domain != "":
        return False
    if node.op_type == "Shape":
        ends = [int_of(node, name, 9) for name in ("start", "end")]
        return node.inputs[0] is index and ends in ([0, 1], [9, 1])
    chosen = known_or_none(node.inputs[1]) if node.op_type == "Gather" else None
    shape = None if chosen is None or node.inputs[0] is None else node.inputs[0].producer()
    if shape is None or shape.op_type != "Shape" or shape.attributes:
        return False
    return shape.inputs[0] is index and chosen is not None and not chosen.any()


def _whole(rows: ir.Value, index: ir.Value) -> ir.Value:
    """Return what as many rows as an index has are sliced from; the rows where they are not so."""
    node = rows.producer()
    if node is None or node.domain != "" or node.op_type != "Slice":
        return rows
    source, start, stop, axes, step = [*node.inputs, None, None][:5]
    fixed = [known_or_none(each) for each in (start, axes, step)]
    first = fixed[0] is not None and not fixed[0].any() and fixed[0].size == 1
    along = axes is None or (fixed[1] is not None and not fixed[1].any())
    forward = step is None or (fixed[2] is not None and (fixed[2] == 1).all())
    if first and along and forward and source is not None and _counts(stop, index):
        return source
    return rows


_INDEX = P.Transpose(P.NonZero("mask").shared, perm=(1, 0)).shared


@rule(P.ScatterND("x", _INDEX.named("index"), "rows"), opset=(13, None))
def merging_to_where(
    op: Tape, x: ir.Value, mask: ir.Value, index: ir.Value, rows: ir.Value
) -> Replacement:
    """ScatterND(x, NonZero(m), rows) -> Where(m, Gather(rows, CumSum(m) - 1), x)."""
    count = _axes_covered(mask, x)
    if count is None or x.dtype is None:
        return refuse("{} is not known to have the sizes of the first axes of {}", mask, x)
    return put_where(op, x, mask, _whole(rows, index), count)


@rule(P.Shape(_INDEX, _node="node"), opset=(13, None))
def rows_of_nonzero_to_sum(op: Tape, mask: ir.Value, node: ir.Node) -> Replacement:
    """Shape(Transpose(NonZero(m))) -> [ReduceSum(m != 0), rank of m]."""
    if mask.shape is None:
        return refuse("the rank of {} is unknown", mask)
    places = flat(op, op.Cast(cast(op, mask, _D.BOOL), to=_D.INT64))
    count = op.ReduceSum(places, vector(op, [0]), keepdims=1)
    whole = op.Concat(count, vector(op, [len(mask.shape)]), axis=0)
    start, end = int_of(node, "start", 0), int_of(node, "end", 2)
    return whole if (start, end) == (0, 2) else part(op, whole, start, end)


TOKENS = RuleSet((merging_to_where, rows_of_nonzero_to_sum))
