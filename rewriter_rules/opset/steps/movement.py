"""Operators that move elements: axes counted from the back, attributes and inputs, new options."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import (
    axis_of,
    blank,
    cast,
    given_integers,
    index_along,
    normalized,
    part,
    scalar_at,
    size_at,
    vector,
    without,
)
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dtype,
    integer,
    integers,
    known,
    known_or_none,
    listed,
    operand,
    operands,
    optional_input,
    rank,
    text,
)
from vlmpass.rewriter_rules.opset.seen import original
from vlmpass.rewriter_rules.opset.steps.reduce import conditional, flagged_axes
from vlmpass.rewriter_rules.opset.table import (
    HIGHER,
    UNCHANGED,
    CannotConvert,
    Outputs,
    adapter,
    expansion,
)

__all__: list[str] = []

_D = ir.DataType


@adapter("Concat", 11, 4)
@adapter("Split", 11, 2)
@adapter("Flatten", 11, 9)
@adapter("ArgMax ArgMin Softmax LogSoftmax Hardmax", 11, 1)
@adapter("Compress", 11, 9)
def axis_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, axis=a) -> Op(x, axis=a + r), when a < 0."""
    axis = integer(node, "axis")
    return again(op, node, axis=axis_of(node, 0)) if axis < 0 else UNCHANGED


def _images(op: Tape, node: ir.Node) -> tuple[list[ir.Value], list[ir.Value]]:
    """Record the sizes of a batch of images, and the side and the area of a block."""
    x, block = operand(node, 0), integer(node, "blocksize")
    sizes = [size_at(op, x, axis) for axis in range(4)]
    return sizes, [vector(op, [block]), vector(op, [block * block])]


@adapter("DepthToSpace", 11, 1)
def depth_to_space_by_column(op: Tape, node: ir.Node) -> Outputs:
    """DepthToSpace(x, mode=CRD) -> Reshape(Transpose(Reshape(x)))."""
    if text(node, "mode", "DCR") == "DCR":
        return without(op, node, "mode")
    (n, c, h, w), (side, area) = _images(op, node)
    deep = op.Div(c, area)
    blocks = op.Concat(n, deep, side, side, h, w, axis=0)
    moved = op.Transpose(op.Reshape(operand(node, 0), blocks), perm=[0, 1, 4, 2, 5, 3])
    return op.Reshape(moved, op.Concat(n, deep, op.Mul(h, side), op.Mul(w, side), axis=0))


@adapter("SpaceToDepth", 28, 13)
def space_to_depth_by_column(op: Tape, node: ir.Node) -> Outputs:
    """SpaceToDepth(x, mode=CRD) -> Reshape(Transpose(Reshape(x)))."""
    if text(node, "mode", "DCR") == "DCR":
        return without(op, node, "mode")
    (n, c, h, w), (side, area) = _images(op, node)
    high, wide = op.Div(h, side), op.Div(w, side)
    blocks = op.Concat(n, c, high, side, wide, side, axis=0)
    moved = op.Transpose(op.Reshape(operand(node, 0), blocks), perm=[0, 1, 3, 5, 2, 4])
    return op.Reshape(moved, op.Concat(n, op.Mul(c, area), high, wide, axis=0))


@adapter("TopK", 11, 10)
def largest_of_negated(op: Tape, node: ir.Node) -> Outputs:
    """TopK(x, k, largest=0) -> TopK(-x, k), its values negated, axis counted from the front."""
    axis = -1 if integer(node, "axis", -1) == -1 else axis_of(node, -1)
    if integer(node, "largest", 1):
        return again(op, node, drop=("largest", "sorted"), axis=axis)
    inputs = [_turned(op, operand(node, 0)), *node.inputs[1:]]
    values, indices = again(op, node, inputs, drop=("largest", "sorted"), axis=axis)
    return [_turned(op, values), indices]


def _turned(op: Tape, x: ir.Value) -> ir.Value:
    """Record x in the opposite order: -x, or its bits turned where the lowest has no negative."""
    kind = dtype(x)
    if kind.is_floating_point():
        return op.Neg(x)
    ones = np.array(-1 if kind.is_signed() else kind.max, kind.numpy())
    return op.Sub(op.const(ones, kind), x)


@adapter("TopK", 1, 10)
def k_becomes_input(op: Tape, node: ir.Node) -> Outputs:
    """TopK(x, k=n) -> TopK(x, [n])."""
    count = vector(op, [integer(node, "k")], "k")
    return again(op, node, [node.inputs[0], count], drop=("k",))


@adapter("TopK", 10, 1)
def k_becomes_attribute(op: Tape, node: ir.Node) -> Outputs:
    """TopK(x, [n]) -> TopK(x, k=n)."""
    (count, *_) = listed(known(operand(node, 1), "K"))
    if count < 1:
        raise CannotConvert("it asks for no element, which came with opset 10", HIGHER)
    return again(op, node, [node.inputs[0]], k=count)


@adapter("Squeeze", 11, 1)
@adapter("Unsqueeze", 11, 1)
def squeezed_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, axes=a) -> Op(x, axes=a + r) for each a below 0."""
    axes = integers(node, "axes")
    if axes is None or min(axes, default=0) >= 0:
        return UNCHANGED
    count = rank(operand(node, 0)) + (len(axes) if node.op_type == "Unsqueeze" else 0)
    # In order: shape inference of these versions takes them to be.
    return again(op, node, axes=sorted(normalized(axis, count) for axis in axes))


@adapter("Unsqueeze", 13, 11)
def unsqueeze_axes_become_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Unsqueeze(x, a) -> Unsqueeze(x, axes=a), by Reshape if a varies."""
    x, axes = operands(node, 2)
    values = known_or_none(axes)
    if values is not None:
        return again(op, node, [x], axes=listed(values))
    return op.Reshape(x, _unsqueezed(op, x, axes))


def _unsqueezed(op: Tape, x: ir.Value, axes: ir.Value) -> ir.Value:
    """Record the shape of x with axes of size 1 where they are asked for."""
    count = op.Add(op.Size(axes), op.const(rank(x)))
    length = op.Unsqueeze(count, axes=[0])
    ones = op.ConstantOfShape(length, value=ir.tensor(np.array([1], np.int64)))
    zeros = op.Expand(op.const(0), op.Shape(axes))
    kept = op.ScatterElements(ones, op.Mod(axes, count), zeros, axis=0)
    places = op.Squeeze(op.NonZero(kept), axes=[0])
    return op.ScatterElements(ones, places, op.Shape(x), axis=0)


@adapter("Squeeze", 13, 11)
def squeeze_axes_become_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Squeeze(x, a) -> Squeeze(x, axes=a), by Reshape if a varies."""
    x, axes = operand(node, 0), optional_input(node, 1)
    if axes is None:
        return UNCHANGED
    values = known_or_none(axes)
    if values is not None:
        return again(op, node, [x], axes=listed(values))
    kept = op.Equal(flagged_axes(op, axes, rank(x)), op.const(0))
    return op.Reshape(x, op.Compress(op.Shape(x), kept, axis=0))


@adapter("Shape", 15, 13)
def part_of_shape(op: Tape, node: ir.Node) -> Outputs:
    """Shape(x, start=a, end=b) -> Slice(Shape(x), a, b)."""
    start, end = integer(node, "start"), integer(node, "end", 2**31 - 1)
    if not {"start", "end"} & set(node.attributes):
        return UNCHANGED
    (shape,) = again(op, node, drop=("start", "end"))
    whole = start == 0 and "end" not in node.attributes
    return shape if whole else part(op, shape, start, end)


@adapter("Reshape", 14, 13)
def zeros_allowed(op: Tape, node: ir.Node) -> Outputs:
    """Reshape(x, s, allowzero=1) -> an empty tensor of shape s, where s has a 0."""
    x, shape = operands(node, 2)
    if integer(node, "allowzero") == 0 or _has_no_zero(shape):
        return without(op, node, "allowzero")
    filler = blank(op, dtype(x))
    if known_or_none(shape) is not None:
        return op.Expand(filler, shape)
    empty = op.Not(op.Cast(op.ReduceMin(op.Abs(shape), axes=[0], keepdims=0), to=_D.BOOL))
    branches = (lambda inner: inner.Expand(filler, shape), lambda inner: inner.Reshape(x, shape))
    return conditional(op, empty, *branches, x.type)


def _has_no_zero(shape: ir.Value) -> bool:
    """Whether a shape is known to have no 0: beside a -1 there may be none."""
    values, producer = known_or_none(shape), original(shape).producer()
    if values is not None and not (values == 0).any():
        return True
    if producer is None or (producer.domain, producer.op_type) != ("", "Concat"):
        return False
    parts = [known_or_none(part) for part in producer.inputs]
    return any(part is not None and (part == -1).any() for part in parts)


@adapter("Slice", 1, 10)
def bounds_become_inputs(op: Tape, node: ir.Node) -> Outputs:
    """Slice(x, starts=s, ends=e, axes=a) -> Slice(x, s, e, a)."""
    bounds = [given_integers(op, node, name) for name in ("starts", "ends", "axes")]
    return again(op, node, [node.inputs[0], *bounds], drop=("starts", "ends", "axes"))


@adapter("Slice", 10, 1)
def bounds_become_attributes(op: Tape, node: ir.Node) -> Outputs:
    """Slice(x, s, e, a) -> Slice(x, starts=s, ends=e, axes=a), when every step is 1."""
    given = zip(("starts", "ends", "axes", "steps"), node.inputs[1:], strict=False)
    values = {name: listed(known(value, name)) for name, value in given if value is not None}
    if set(values.pop("steps", [1])) != {1}:
        raise CannotConvert("steps other than 1 do not exist before opset 10", HIGHER)
    return op.node("Slice", node.inputs[:1], values)


@adapter("Slice", 11, 10)
def slice_axes_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Slice(x, s, e, a) -> Slice(x, s, e, a + r), where a < 0."""
    axes = optional_input(node, 3)
    if axes is None or not _may_be_negative(axes):
        return UNCHANGED
    front = _axes_in_front(op, axes, rank(operand(node, 0)))
    return again(op, node, [*node.inputs[:3], front, *node.inputs[4:]])


def _may_be_negative(values: ir.Value) -> bool:
    """Whether indices may count from the back."""
    fixed = known_or_none(values)
    return fixed is None or bool((fixed < 0).any())


def _axes_in_front(op: Tape, axes: ir.Value, count: int) -> ir.Value:
    """Record axes counted from the front, in the type they have."""
    fixed = known_or_none(axes)
    if fixed is not None:
        return op.const(np.where(fixed < 0, fixed + count, fixed))
    wide = op.Cast(axes, to=_D.INT64)
    return op.Cast(op.Mod(wide, op.const(count)), to=dtype(axes))


def _in_front(op: Tape, x: ir.Value, indices: ir.Value, axis: int) -> ir.Value:
    """Record indices into an axis of x, counted from the front."""
    size = scalar_at(op, op.Shape(x), axis)
    return op.Mod(cast(op, indices, _D.INT64), size)


@adapter("Gather", 11, 1)
def indices_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Gather(x, i) -> Gather(x, i mod d), where i may be negative."""
    x, indices = operands(node, 2)
    axis = axis_of(node, 0)
    if not _may_be_negative(indices):
        return again(op, node, axis=axis) if axis != integer(node, "axis") else UNCHANGED
    return again(op, node, [x, _in_front(op, x, indices, axis)], axis=axis)


@adapter("OneHot", 11, 9)
def hot_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """OneHot(i, d, v) -> OneHot(i + d, d, v), where i < 0."""
    indices, depth, values = operands(node, 3)
    axis = integer(node, "axis", -1)
    axis = normalized(axis, rank(indices) + 1) if axis < -1 else axis
    if _may_be_negative(indices):
        indices = _hot_in_front(op, indices, depth)
    return again(op, node, [indices, depth, values], axis=axis)


def _hot_in_front(op: Tape, indices: ir.Value, depth: ir.Value) -> ir.Value:
    """Record indices counted from the front; those below 0 even then are hot nowhere."""
    whole, count = cast(op, indices, _D.INT64), cast(op, depth, _D.INT64)
    front = op.Where(op.Less(whole, op.const(0)), op.Add(whole, count), whole)
    # Nor is what lies beyond the depth.
    return op.Where(op.Less(front, op.const(0)), count, front)


@adapter("GatherND", 12, 11)
def batches_become_indices(op: Tape, node: ir.Node) -> Outputs:
    """GatherND(x, i, batch_dims=b) -> GatherND(x, Concat(batch places, i))."""
    if integer(node, "batch_dims") == 0:
        return without(op, node, "batch_dims")
    x, indices = operands(node, 2)
    batch = _batch_places(op, indices, integer(node, "batch_dims"))
    return again(op, node, [x, op.Concat(*batch, indices, axis=-1)], drop=("batch_dims",))


def _batch_places(op: Tape, indices: ir.Value, count: int) -> list[ir.Value]:
    """Record for each index its place along each of the first axes."""
    depth = rank(indices)
    shape = op.Shape(indices)
    places = op.Concat(part(op, shape, 0, -1), vector(op, [1]), axis=0)
    lines = (index_along(op, shape, axis, depth) for axis in range(count))
    return [op.Expand(line, places) for line in lines]


@adapter("Scatter", 9, 11)
def scatter_elements(op: Tape, node: ir.Node) -> Outputs:
    """Scatter(x, i, u) -> ScatterElements(x, i, u)."""
    return again(op, node, op_type="ScatterElements")


@expansion("ScatterElements", 11)
def scatter(op: Tape, node: ir.Node) -> Outputs:
    """ScatterElements(x, i, u) -> Scatter(x, i, u), when no index is negative."""
    x, indices, updates = operands(node, 3)
    axis = axis_of(node, 0)
    if _may_be_negative(indices):
        indices = _in_front(op, x, indices, axis)
    return again(op, node, [x, indices, updates], op_type="Scatter", axis=axis)


@expansion("Trilu", 14)
def triangle(op: Tape, node: ir.Node) -> Outputs:
    """Trilu(x, k) -> Where(row + k <= column, x, 0)."""
    x, offset = operand(node, 0), optional_input(node, 1)
    if dtype(x) == _D.STRING:
        raise CannotConvert("it blanks elements of type string, and nothing says with what", HIGHER)
    row, column = _rows_and_columns(op, x)
    shifted = row if offset is None else op.Add(row, offset)
    beyond = (op.Less if integer(node, "upper", 1) else op.Greater)(column, shifted)
    keep, filler = op.Not(beyond), blank(op, dtype(x))
    return op.Where(keep, x, filler)


def _rows_and_columns(op: Tape, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Record the row of each element of a matrix, as a column, and the column, as a row."""
    rows, columns = (op.Squeeze(size_at(op, x, rank(x) - back), vector(op, [0])) for back in (2, 1))
    zero, one = op.const(0), op.const(1)
    row = op.Unsqueeze(op.Range(zero, rows, one), vector(op, [1]))
    return row, op.Range(zero, columns, one)
