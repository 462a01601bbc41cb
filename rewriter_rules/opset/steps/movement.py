"""Operators that move elements: axes counted from the back, attributes and inputs, new options."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import (
    axis_of,
    given_integers,
    nonnegative,
    normalized,
    size_at,
    vector,
)
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dtype,
    integer,
    integers,
    known,
    known_or_none,
    operand,
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


@adapter("DepthToSpace", 11, 1)
def depth_to_space_by_column(op: Tape, node: ir.Node) -> Outputs:
    """DepthToSpace(x, mode=CRD) -> Reshape(Transpose(Reshape(x)))."""
    if text(node, "mode", "DCR") == "DCR":
        return again(op, node, drop=("mode",)) if "mode" in node.attributes else UNCHANGED
    x, block = operand(node, 0), integer(node, "blocksize")
    n, c, h, w = (size_at(op, x, axis) for axis in range(4))
    side, area = vector(op, [block]), vector(op, [block * block])
    deep = op.Div(c, area)
    blocks = op.Concat(n, deep, side, side, h, w, axis=0)
    moved = op.Transpose(op.Reshape(x, blocks), perm=[0, 1, 4, 2, 5, 3])
    shape = op.Concat(n, deep, op.Mul(h, side), op.Mul(w, side), axis=0)
    return op.Reshape(moved, shape)


@adapter("SpaceToDepth", 28, 13)
def space_to_depth_by_column(op: Tape, node: ir.Node) -> Outputs:
    """SpaceToDepth(x, mode=CRD) -> Reshape(Transpose(Reshape(x)))."""
    if text(node, "mode", "DCR") == "DCR":
        return again(op, node, drop=("mode",)) if "mode" in node.attributes else UNCHANGED
    x, block = operand(node, 0), integer(node, "blocksize")
    n, c, h, w = (size_at(op, x, axis) for axis in range(4))
    side, area = vector(op, [block]), vector(op, [block * block])
    high, wide = op.Div(h, side), op.Div(w, side)
    blocks = op.Concat(n, c, high, side, wide, side, axis=0)
    moved = op.Transpose(op.Reshape(x, blocks), perm=[0, 1, 3, 5, 2, 4])
    return op.Reshape(moved, op.Concat(n, op.Mul(c, area), high, wide, axis=0))


@adapter("TopK", 11, 10)
def largest_of_negated(op: Tape, node: ir.Node) -> Outputs:
    """TopK(x, k, largest=0) -> TopK(-x, k), its values negated, axis counted from the front."""
    axis = integer(node, "axis", -1)
    if axis != -1:
        axis = axis_of(node, -1)
    x = operand(node, 0)
    if integer(node, "largest", 1):
        return again(op, node, drop=("largest", "sorted"), axis=axis)
    turned = _turned(op, x)
    inputs = [turned, *node.inputs[1:]]
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
    count = int(known(operand(node, 1), "K").reshape(-1)[0])
    if count < 1:
        raise CannotConvert(
            "it asks for no element, which came with opset 10", "choose opset 10 or higher"
        )
    return again(op, node, [node.inputs[0]], k=count)


@adapter("Squeeze", 11, 1)
@adapter("Unsqueeze", 11, 1)
def squeezed_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, axes=a) -> Op(x, axes=a + r) for each a below 0."""
    axes = integers(node, "axes")
    if axes is None or min(axes, default=0) >= 0:
        return UNCHANGED
    x = operand(node, 0)
    count = rank(x) + (len(axes) if node.op_type == "Unsqueeze" else 0)
    # In order: shape inference of these versions takes them to be.
    return again(op, node, axes=sorted(normalized(axis, count) for axis in axes))


@adapter("Unsqueeze", 13, 11)
def unsqueeze_axes_become_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Unsqueeze(x, a) -> Unsqueeze(x, axes=a), by Reshape if a varies."""
    x, axes = operand(node, 0), operand(node, 1)
    values = known_or_none(axes)
    if values is not None:
        return again(op, node, [x], axes=[int(axis) for axis in values.reshape(-1)])
    count = op.Add(op.Size(axes), op.const(rank(x)))
    length = op.Unsqueeze(count, axes=[0])
    ones = op.ConstantOfShape(length, value=ir.tensor(np.array([1], np.int64)))
    zeros = op.Expand(op.const(0), op.Shape(axes))
    kept = op.ScatterElements(ones, op.Mod(axes, count), zeros, axis=0)
    places = op.Squeeze(op.NonZero(kept), axes=[0])
    return op.Reshape(x, op.ScatterElements(ones, places, op.Shape(x), axis=0))


@adapter("Squeeze", 13, 11)
def squeeze_axes_become_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Squeeze(x, a) -> Squeeze(x, axes=a), by Reshape if a varies."""
    x, axes = operand(node, 0), optional_input(node, 1)
    if axes is None:
        return UNCHANGED
    values = known_or_none(axes)
    if values is not None:
        return again(op, node, [x], axes=[int(axis) for axis in values.reshape(-1)])
    kept = op.Equal(flagged_axes(op, axes, rank(x)), op.const(0))
    return op.Reshape(x, op.Compress(op.Shape(x), kept, axis=0))


@adapter("Shape", 15, 13)
def part_of_shape(op: Tape, node: ir.Node) -> Outputs:
    """Shape(x, start=a, end=b) -> Slice(Shape(x), a, b)."""
    start = integer(node, "start")
    end = integer(node, "end", 2**31 - 1)
    if not {"start", "end"} & set(node.attributes):
        return UNCHANGED
    (shape,) = again(op, node, drop=("start", "end"))
    if start == 0 and "end" not in node.attributes:
        return shape
    return op.Slice(shape, vector(op, [start]), vector(op, [end]), vector(op, [0]))


@adapter("Reshape", 14, 13)
def zeros_allowed(op: Tape, node: ir.Node) -> Outputs:
    """Reshape(x, s, allowzero=1) -> an empty tensor of shape s, where s has a 0."""
    if integer(node, "allowzero") == 0:
        return again(op, node, drop=("allowzero",)) if node.attributes else UNCHANGED
    x, shape = operand(node, 0), operand(node, 1)
    values = known_or_none(shape)
    if (values is not None and not (values == 0).any()) or _has_minus_one(shape):
        return again(op, node, drop=("allowzero",))
    filler = op.const(np.zeros([], dtype(x).numpy()), dtype(x))
    if values is not None:
        return op.Expand(filler, shape)
    lowest = op.ReduceMin(op.Abs(shape), axes=[0], keepdims=0)
    empty = op.Not(op.Cast(lowest, to=_D.BOOL))
    return conditional(
        op,
        empty,
        lambda inner: inner.Expand(filler, shape),
        lambda inner: inner.Reshape(x, shape),
        x.type,
    )


def _has_minus_one(shape: ir.Value) -> bool:
    """Whether a part of a shape is -1, beside which it may not have a 0."""
    producer = original(shape).producer()
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
    names = ("starts", "ends", "axes", "steps")
    values = {
        name: [int(each) for each in known(value, name).reshape(-1)]
        for name, value in zip(names, node.inputs[1:], strict=False)
        if value is not None
    }
    if set(values.pop("steps", [1])) != {1}:
        raise CannotConvert(
            "steps other than 1 do not exist before opset 10", "choose opset 10 or higher"
        )
    return op.node("Slice", node.inputs[:1], values)


@adapter("Slice", 11, 10)
def slice_axes_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Slice(x, s, e, a) -> Slice(x, s, e, a + r), where a < 0."""
    axes, x = optional_input(node, 3), operand(node, 0)
    if axes is None:
        return UNCHANGED
    values = known_or_none(axes)
    if values is not None and (values >= 0).all():
        return UNCHANGED
    count = rank(x)
    if values is None:
        wide = op.Cast(axes, to=_D.INT64)
        front = op.Cast(nonnegative(op, wide, op.const(count)), to=dtype(axes))
    else:
        front = op.const(np.where(values < 0, values + count, values))
    return again(op, node, [*node.inputs[:3], front, *node.inputs[4:]])


def _int64(op: Tape, value: ir.Value) -> ir.Value:
    return value if value.dtype == _D.INT64 else op.Cast(value, to=_D.INT64)


@adapter("Gather", 11, 1)
def indices_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Gather(x, i) -> Gather(x, i mod d), where i may be negative."""
    x, indices = operand(node, 0), operand(node, 1)
    axis = axis_of(node, 0)
    values = known_or_none(indices)
    if values is not None and (values >= 0).all():
        return again(op, node, axis=axis) if axis != integer(node, "axis") else UNCHANGED
    size = op.Gather(op.Shape(x), op.const(axis), axis=0)
    front = nonnegative(op, _int64(op, indices), size)
    return again(op, node, [x, front], axis=axis)


@adapter("OneHot", 11, 9)
def hot_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """OneHot(i, d, v) -> OneHot(i + d, d, v), where i < 0."""
    indices, depth, values = (operand(node, index) for index in range(3))
    axis = integer(node, "axis", -1)
    if axis < -1:
        axis = normalized(axis, rank(indices) + 1)
    fixed = known_or_none(indices)
    if fixed is None or (fixed < 0).any():
        whole = _int64(op, indices)
        count = _int64(op, depth)
        front = op.Where(op.Less(whole, op.const(0)), op.Add(whole, count), whole)
        # What is still below 0 is hot nowhere, as is what lies beyond the depth.
        indices = op.Where(op.Less(front, op.const(0)), count, front)
    return again(op, node, [indices, depth, values], axis=axis)


@adapter("GatherND", 12, 11)
def batches_become_indices(op: Tape, node: ir.Node) -> Outputs:
    """GatherND(x, i, batch_dims=b) -> GatherND(x, Concat(batch places, i))."""
    count = integer(node, "batch_dims")
    if count == 0:
        return again(op, node, drop=("batch_dims",)) if node.attributes else UNCHANGED
    x, indices = operand(node, 0), operand(node, 1)
    depth = rank(indices)
    shape = op.Shape(indices)
    lead = op.Slice(shape, vector(op, [0]), vector(op, [-1]), vector(op, [0]))
    places = op.Concat(lead, vector(op, [1]), axis=0)
    coordinates: list[ir.Value] = []
    for axis in range(count):
        size = op.Gather(shape, op.const(axis), axis=0)
        line = op.Range(op.const(0), size, op.const(1))
        spread = [1] * depth
        spread[axis] = -1
        coordinates.append(op.Expand(op.Reshape(line, vector(op, spread)), places))
    whole = op.Concat(*coordinates, indices, axis=-1)
    return again(op, node, [x, whole], drop=("batch_dims",))


@adapter("Scatter", 9, 11)
def scatter_elements(op: Tape, node: ir.Node) -> Outputs:
    """Scatter(x, i, u) -> ScatterElements(x, i, u)."""
    return again(op, node, op_type="ScatterElements")


@expansion("ScatterElements", 11)
def scatter(op: Tape, node: ir.Node) -> Outputs:
    """ScatterElements(x, i, u) -> Scatter(x, i, u), when no index is negative."""
    x, indices = operand(node, 0), operand(node, 1)
    axis = axis_of(node, 0)
    values = known_or_none(indices)
    if values is None or (values < 0).any():
        size = op.Gather(op.Shape(x), op.const(axis), axis=0)
        front = nonnegative(op, _int64(op, indices), size)
        return again(op, node, [x, front, node.inputs[2]], op_type="Scatter", axis=axis)
    return again(op, node, op_type="Scatter", axis=axis)


@expansion("Trilu", 14)
def triangle(op: Tape, node: ir.Node) -> Outputs:
    """Trilu(x, k) -> Where(row + k <= column, x, 0)."""
    x, offset = operand(node, 0), optional_input(node, 1)
    if dtype(x) == _D.STRING:
        raise CannotConvert("it blanks elements of type string, and nothing says with what", HIGHER)
    rows = op.Squeeze(size_at(op, x, rank(x) - 2), vector(op, [0]))
    columns = op.Squeeze(size_at(op, x, rank(x) - 1), vector(op, [0]))
    zero, one = op.const(0), op.const(1)
    row = op.Unsqueeze(op.Range(zero, rows, one), vector(op, [1]))
    column = op.Range(zero, columns, one)
    shifted = row if offset is None else op.Add(row, offset)
    if integer(node, "upper", 1):
        keep = op.Not(op.Less(column, shifted))
    else:
        keep = op.Not(op.Greater(column, shifted))
    blank = op.const(np.zeros([], dtype(x).numpy()), dtype(x))
    return op.Where(keep, x, blank)
