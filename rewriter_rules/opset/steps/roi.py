"""RoiAlign: regions measured from pixel centres, below the opset that brought them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import flat, scalar, vector
from vlmpass.rewriter_rules.opset.queries import again, dtype, integer, operand, real, text
from vlmpass.rewriter_rules.opset.table import Outputs, adapter

__all__: list[str] = []

_D = ir.DataType
_MODE = "coordinate_transformation_mode"


@adapter("RoiAlign", 10, 16)
def output_half_pixel(op: Tape, node: ir.Node) -> Outputs:
    """RoiAlign(x) -> RoiAlign(x, coordinate_transformation_mode=output_half_pixel)."""
    return again(op, node, coordinate_transformation_mode="output_half_pixel")


@adapter("RoiAlign", 16, 10)
def output_half_pixel_by_default(op: Tape, node: ir.Node) -> Outputs:
    """RoiAlign(x), output_half_pixel -> RoiAlign(x); half_pixel by weighted Gathers."""
    if text(node, _MODE, "half_pixel") == "output_half_pixel":
        return again(op, node, drop=(_MODE,))
    return _gathered(op, node)


@dataclass
class _Line:
    """The samples of every region along one axis, `places` being outputs times samples.

    Attributes:
        low: Their lower neighbour, int64 of shape (regions, places).
        high: Their upper neighbour.
        below: Weight of the lower neighbour, 0 for a sample off the image.
        above: Weight of the upper neighbour.
        real: Whether a sample exists, as regions differ in how many they have.
        count: Number of samples in an output, of shape (regions, 1).
        most: The largest such number, an int64 vector of one element.
    """

    low: ir.Value
    high: ir.Value
    below: ir.Value
    above: ir.Value
    real: ir.Value
    count: ir.Value
    most: ir.Value


def _bounds(
    op: Tape, node: ir.Node, column: int, outputs: int, kind: ir.DataType
) -> tuple[ir.Value, ir.Value]:
    """Record where each region begins and how long an output is, of shape (regions, 1, 1)."""
    rois = op.Cast(operand(node, 1), to=kind)
    scale = scalar(op, real(node, "spatial_scale", 1.0), kind)
    ends = []
    for at in (column, column + 2):
        given = op.Unsqueeze(op.Gather(rois, vector(op, [at]), axis=1), vector(op, [2]))
        ends.append(op.Sub(op.Mul(given, scale), scalar(op, 0.5, kind)))
    return ends[0], op.Div(op.Sub(ends[1], ends[0]), scalar(op, outputs, kind))


def _counts(
    op: Tape, node: ir.Node, step: ir.Value, kind: ir.DataType
) -> tuple[ir.Value, ir.Value]:
    """Record how many samples each region has in an output, and the most of any."""
    given = integer(node, "sampling_ratio")
    one = scalar(op, 1, kind)
    if given > 0:
        return scalar(op, given, kind), vector(op, [given])
    count = op.Max(op.Ceil(step), scalar(op, 0, kind))
    some = op.Concat(flat(op, count), op.Reshape(one, vector(op, [1])), axis=0)
    return count, op.Cast(op.ReduceMax(some, keepdims=1), to=_D.INT64)


def _line(op: Tape, node: ir.Node, axis: int, size: ir.Value, kind: ir.DataType) -> _Line:
    """Record the samples along the height (axis 0) or the width (axis 1)."""
    outputs = integer(node, ("output_height", "output_width")[axis], 1)
    zero, half, one = (scalar(op, each, kind) for each in (0, 0.5, 1))
    begin, step = _bounds(op, node, 1 - axis, outputs, kind)
    count, most = _counts(op, node, step, kind)
    stop = op.Reshape(most, vector(op, []))
    ticks = op.Range(scalar(op, 0, _D.INT64), stop, scalar(op, 1, _D.INT64))
    sample = op.Cast(op.Unsqueeze(ticks, vector(op, [0, 1])), to=kind)
    first = op.const(np.arange(outputs, dtype=kind.numpy()).reshape(1, -1, 1), kind)
    within = op.Div(op.Mul(op.Add(sample, half), step), op.Max(count, one))
    place = op.Add(op.Add(begin, op.Mul(first, step)), within)
    flat = vector(op, [0, -1])
    exists = op.Expand(op.Less(sample, count), op.Shape(place))
    real_, place = op.Reshape(exists, flat), op.Reshape(place, flat)
    length = op.Cast(size, to=kind)
    off = op.Or(op.Less(place, scalar(op, -1, kind)), op.Greater(place, length))
    last = op.Sub(length, one)
    near = op.Min(op.Max(place, zero), last)
    low = op.Floor(near)
    above = op.Sub(near, low)
    below = op.Sub(one, above)
    return _Line(
        op.Cast(low, to=_D.INT64),
        op.Cast(op.Min(op.Add(low, one), last), to=_D.INT64),
        op.Where(off, zero, below),
        op.Where(off, zero, above),
        real_,
        op.Reshape(count, vector(op, [-1, 1, 1, 1])),
        most,
    )


def _crossed(op: Tape, rows: ir.Value, columns: ir.Value, operator: str) -> ir.Value:
    """Record an operator of every row with every column, (regions, rows, columns)."""
    down, across = op.Unsqueeze(rows, vector(op, [2])), op.Unsqueeze(columns, vector(op, [1]))
    return op.node(operator, [down, across])[0]


def _gathered(op: Tape, node: ir.Node) -> ir.Value:
    """Record the mean or largest of each output's samples, four weighted neighbours each."""
    x, batch = operand(node, 0), operand(node, 2)
    kind = _D.DOUBLE if dtype(x) == _D.DOUBLE else _D.FLOAT
    shape = op.Shape(x)
    height, width = (op.Gather(shape, vector(op, [axis]), axis=0) for axis in (2, 3))
    channels = op.Gather(shape, vector(op, [1]), axis=0)
    lead = op.Concat(vector(op, [-1]), channels, axis=0)
    pixels = op.Reshape(op.Transpose(x, perm=[0, 2, 3, 1]), lead)
    rows, columns = (_line(op, node, axis, size, kind) for axis, size in enumerate((height, width)))
    origin = op.Reshape(op.Mul(batch, op.Mul(height, width)), vector(op, [-1, 1, 1]))
    terms = []
    for y, v in ((rows.low, rows.below), (rows.high, rows.above)):
        for x_, u in ((columns.low, columns.below), (columns.high, columns.above)):
            at = op.Add(origin, _crossed(op, op.Mul(y, width), x_, "Add"))
            found = op.Cast(op.Gather(pixels, at, axis=0), to=kind)
            weight = op.Unsqueeze(_crossed(op, v, u, "Mul"), vector(op, [3]))
            terms.append(op.Mul(found, weight))
    pooled = _pooled(op, node, terms, (rows, columns), channels, kind)
    return op.Cast(op.Transpose(pooled, perm=[0, 3, 1, 2]), to=dtype(x))


def _pooled(
    op: Tape,
    node: ir.Node,
    terms: list[ir.Value],
    lines: tuple[_Line, _Line],
    channels: ir.Value,
    kind: ir.DataType,
) -> ir.Value:
    """Record what an output makes of its samples, of shape (regions, height, width, channels)."""
    rows, columns = lines
    largest = text(node, "mode", "avg").lower() == "max"
    zero = scalar(op, 0, kind)
    real_ = op.Unsqueeze(_crossed(op, rows.real, columns.real, "And"), vector(op, [3]))
    # The largest of the weighted neighbours, not of their sums: so all runtimes have it.
    value = op.Max(*terms) if largest else op.Sum(*terms)
    value = op.Where(real_, value, scalar(op, -np.inf, kind) if largest else zero)
    sizes = [vector(op, [integer(node, name, 1)]) for name in ("output_height", "output_width")]
    split = op.Concat(
        vector(op, [-1]), sizes[0], rows.most, sizes[1], columns.most, channels, axis=0
    )
    value, number = op.Reshape(value, split), op.Mul(rows.count, columns.count)
    if largest:
        some = op.Greater(number, zero)
        return op.Where(some, op.ReduceMax(value, axes=[2, 4], keepdims=0), zero)
    total = op.ReduceSum(value, vector(op, [2, 4]), keepdims=0)
    return op.Div(total, op.Max(number, scalar(op, 1, kind)))
