"""Split and Pad: sizes and pads as attribute and as input, axes, uneven parts, wrapping."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import (
    axis_of,
    given_integers,
    normalized,
    scalar,
    scalar_at,
    size_at,
    vector,
)
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dims,
    dtype,
    integer,
    known,
    known_or_none,
    listed,
    operand,
    optional_input,
    rank,
    real,
    text,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, Outputs, adapter

__all__: list[str] = []

_D = ir.DataType


@adapter("Split", 11, 13)
def split_becomes_input(op: Tape, node: ir.Node) -> Outputs:
    """Split(x, split=s) -> Split(x, s)."""
    sizes = given_integers(op, node, "split")
    if sizes is None:
        return UNCHANGED
    return again(op, node, [node.inputs[0], sizes], drop=("split",))


@adapter("Split", 13, 18)
def count_of_parts(op: Tape, node: ir.Node) -> Outputs:
    """Split(x) -> Split(x, num_outputs=n), when no sizes are given."""
    if optional_input(node, 1) is not None:
        return UNCHANGED
    return again(op, node, num_outputs=len(node.outputs))


@adapter("Split", 18, 13)
def sizes_of_parts(op: Tape, node: ir.Node) -> Outputs:
    """Split(x, num_outputs=n) -> Split(x, s), s the sizes with the last part the smaller."""
    if optional_input(node, 1) is not None:
        return UNCHANGED
    x, axis, count = operand(node, 0), axis_of(node, 0), len(node.outputs)
    length = (dims(x) or [None] * (axis + 1))[axis]
    if count == 1 or (length is not None and length % count == 0):
        return again(op, node, drop=("num_outputs",))
    sizes = _even_sizes(op, size_at(op, x, axis), count)
    return again(op, node, [x, sizes], drop=("num_outputs",))


def _even_sizes(op: Tape, size: ir.Value, count: int) -> ir.Value:
    """Record the sizes of parts of one size, the last the smaller."""
    parts = op.const(count)
    part = op.Div(op.Add(size, op.const(count - 1)), parts)
    starts = op.Mul(vector(op, range(count)), part)
    ends = op.Min(op.Add(starts, part), size)
    return op.Max(op.Sub(ends, starts), op.const(0))


@adapter("Split", 13, 11)
def split_becomes_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Split(x, s) -> Split(x, split=s), one Slice for each part if s varies."""
    x, sizes = operand(node, 0), optional_input(node, 1)
    if sizes is None:
        return UNCHANGED
    values = known_or_none(sizes)
    if values is not None:
        return again(op, node, [x], split=listed(values))
    return _slices(op, x, sizes, integer(node, "axis"), len(node.outputs))


def _slices(op: Tape, x: ir.Value, sizes: ir.Value, axis: int, count: int) -> list[ir.Value]:
    """Record parts of given sizes, each by a Slice."""
    along_axis = vector(op, [axis])
    ends = op.CumSum(sizes, op.const(0))
    starts = op.Sub(ends, sizes)
    parts: list[ir.Value] = []
    for index in range(count):
        at = vector(op, [index])
        bounds = [op.Gather(each, at, axis=0) for each in (starts, ends)]
        parts.append(op.Slice(x, *bounds, along_axis))
    return parts


@adapter("Pad", 2, 11)
def pads_become_input(op: Tape, node: ir.Node) -> Outputs:
    """Pad(x, pads=p, value=v) -> Pad(x, p, v)."""
    x, value = operand(node, 0), real(node, "value")
    filler = scalar(op, value, dtype(x), "value") if value else None
    pads = given_integers(op, node, "pads")
    return again(op, node, [x, pads, filler], drop=("pads", "value"))


@adapter("Pad", 11, 2)
def pads_become_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Pad(x, p, v) -> Pad(x, pads=p, value=v)."""
    pads, filler = listed(known(operand(node, 1), "pads")), optional_input(node, 2)
    value = None if filler is None else float(known(filler, "constant_value").reshape(-1)[0])
    return again(op, node, [node.inputs[0]], pads=pads, value=value)


@adapter("Pad", 18, 13)
def pads_of_all_axes(op: Tape, node: ir.Node) -> Outputs:
    """Pad(x, p, v, axes) -> Pad(x, q, v), q being p at these axes and 0 at the others."""
    axes = optional_input(node, 3)
    if axes is None:
        return UNCHANGED
    return again(op, node, [node.inputs[0], _all_pads(op, node), *node.inputs[2:3]])


def _all_pads(op: Tape, node: ir.Node) -> ir.Value:
    """Record the pads of every axis, starts first and then ends."""
    x, pads, axes = operand(node, 0), operand(node, 1), optional_input(node, 3)
    if axes is None:
        return pads
    count = rank(x)
    chosen, amounts = known_or_none(axes), known_or_none(pads)
    if chosen is not None and amounts is not None:
        full = np.zeros(2 * count, np.int64)
        for index, axis in enumerate(chosen.reshape(-1)):
            place = normalized(int(axis), count)
            full[place] = amounts[index]
            full[count + place] = amounts[len(chosen) + index]
        return op.const(full, name="pads")
    front = op.Mod(op.Cast(axes, to=_D.INT64), op.const(count))
    places = op.Concat(front, op.Add(front, op.const(count)), axis=0)
    return op.ScatterElements(vector(op, [0] * 2 * count), places, pads, axis=0)


@adapter("Pad", 19, 18)
def wrap(op: Tape, node: ir.Node) -> Outputs:
    """Pad(x, p, mode=wrap) -> Gather(x, Range(-start, d + end) mod d) along each axis."""
    if text(node, "mode", "constant") != "wrap":
        return UNCHANGED
    x, count = operand(node, 0), rank(operand(node, 0))
    pads = _all_pads(op, node)
    amounts = known_or_none(pads)
    for axis in range(count):
        if amounts is None or amounts[axis] or amounts[count + axis]:
            x = _wrapped(op, x, pads, axis, count)
    return x


def _wrapped(op: Tape, x: ir.Value, pads: ir.Value, axis: int, count: int) -> ir.Value:
    """Record x gone round along one axis, as often as its pads ask for."""
    size = scalar_at(op, op.Shape(x), axis)
    start = op.Neg(scalar_at(op, pads, axis))
    end = op.Add(size, scalar_at(op, pads, count + axis))
    line = op.Range(start, end, op.const(1))
    return op.Gather(x, op.Mod(line, size), axis=axis)
