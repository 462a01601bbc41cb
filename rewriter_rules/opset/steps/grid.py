"""Sampling at computed places by gather arithmetic: GridSample, deformed convolution, Col2Im."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import scalar, vector
from vlmpass.rewriter_rules.opset.queries import (
    dims,
    dtype,
    integer,
    integers,
    operand,
    optional_input,
    rank,
    text,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType


def _int(op: Tape, value: int) -> ir.Value:
    return op.const(np.int64(value))


@dataclass
class _Image:
    """A tensor to sample from, of any number of spatial axes.

    Attributes:
        rows: Its elements, of shape (batch, places, channels).
        sizes: Length of each spatial axis, int64 scalars.
        kind: Type of coordinates and weights.
        padding: ``zeros``, ``border`` or ``reflection``.
        corners: Whether reflection happens at the centres of the outermost elements.
    """

    rows: ir.Value
    sizes: list[ir.Value]
    kind: ir.DataType
    padding: str
    corners: bool


def _image(op: Tape, x: ir.Value, count: int, padding: str, corners: bool) -> _Image:
    shape = op.Shape(x)
    sizes = [op.Gather(shape, _int(op, 2 + axis), axis=0) for axis in range(count)]
    lead = op.Slice(shape, vector(op, [0]), vector(op, [2]), vector(op, [0]))
    flat = op.Reshape(x, op.Concat(lead, vector(op, [-1]), axis=0))
    kind = _D.DOUBLE if dtype(x) == _D.DOUBLE else _D.FLOAT
    return _Image(op.Transpose(flat, perm=[0, 2, 1]), sizes, kind, padding, corners)


def _limits(op: Tape, image: _Image, axis: int) -> tuple[ir.Value, ir.Value]:
    """Record where reflection happens along an axis, on both sides."""
    edge = 0.0 if image.corners else 0.5
    low = scalar(op, -edge, image.kind)
    last = scalar(op, 1 - edge, image.kind)
    return low, op.Sub(op.Cast(image.sizes[axis], to=image.kind), last)


def _reflected(op: Tape, image: _Image, place: ir.Value, axis: int) -> ir.Value:
    low, high = _limits(op, image, axis)
    span = op.Sub(high, low)
    zero, one, two = (scalar(op, each, image.kind) for each in (0, 1, 2))
    span = op.Where(op.Equal(op.Cast(span, to=_D.INT64), _int(op, 0)), one, span)
    far = op.Abs(op.Sub(place, low))
    laps = op.Floor(op.Div(far, span))
    rest = op.Sub(far, op.Mul(laps, span))
    odd = op.Greater(op.Sub(laps, op.Mul(op.Floor(op.Div(laps, two)), two)), zero)
    return op.Where(odd, op.Sub(high, rest), op.Add(low, rest))


def _inside(op: Tape, image: _Image, place: ir.Value, axis: int) -> ir.Value:
    """Record a place moved into the image where its padding asks for that."""
    if image.padding == "border":
        last = op.Cast(op.Sub(image.sizes[axis], _int(op, 1)), to=image.kind)
        return op.Min(op.Max(place, scalar(op, 0, image.kind)), last)
    return _reflected(op, image, place, axis) if image.padding == "reflection" else place


def _tap(op: Tape, image: _Image, places: Sequence[ir.Value]) -> ir.Value:
    """Record the elements at whole places, one float of shape (batch, outputs) for each axis."""
    index, valid = None, None
    for axis, place in enumerate(places):
        whole = op.Cast(_inside(op, image, place, axis), to=_D.INT64)
        last = op.Sub(image.sizes[axis], _int(op, 1))
        safe = op.Min(op.Max(whole, _int(op, 0)), last)
        if image.padding == "zeros":
            here = op.Equal(safe, whole)
            valid = here if valid is None else op.And(valid, here)
        index = safe if index is None else op.Add(op.Mul(index, image.sizes[axis]), safe)
    assert index is not None
    found = op.GatherND(image.rows, op.Unsqueeze(index, vector(op, [2])), batch_dims=1)
    if valid is None:
        return found
    kind = dtype(image.rows)
    blank = op.const(np.zeros([], kind.numpy()), kind)
    return op.Where(op.Unsqueeze(valid, vector(op, [2])), found, blank)


def _cubic(op: Tape, t: ir.Value, kind: ir.DataType) -> list[ir.Value]:
    """Record the weights of four neighbours, by Keys' kernel with a = -0.75."""
    a = -0.75
    one, two = scalar(op, 1, kind), scalar(op, 2, kind)

    def outer(s: ir.Value) -> ir.Value:
        value = op.Sub(op.Mul(scalar(op, a, kind), s), scalar(op, 5 * a, kind))
        value = op.Add(op.Mul(value, s), scalar(op, 8 * a, kind))
        return op.Sub(op.Mul(value, s), scalar(op, 4 * a, kind))

    def inner(s: ir.Value) -> ir.Value:
        value = op.Sub(op.Mul(scalar(op, a + 2, kind), s), scalar(op, a + 3, kind))
        return op.Add(op.Mul(op.Mul(value, s), s), one)

    return [outer(op.Add(t, one)), inner(t), inner(op.Sub(one, t)), outer(op.Sub(two, t))]


def _interpolated(op: Tape, image: _Image, places: Sequence[ir.Value], mode: str) -> ir.Value:
    """Record weighted sums of neighbours, of shape (batch, outputs, channels)."""
    kind, floors = image.kind, [op.Floor(place) for place in places]
    weights: list[list[ir.Value]] = []
    for place, low in zip(places, floors, strict=True):
        t = op.Sub(place, low)
        weights.append(
            _cubic(op, t, kind) if mode == "cubic" else [op.Sub(scalar(op, 1, kind), t), t]
        )
    first = -1 if mode == "cubic" else 0
    total: ir.Value | None = None
    for steps in itertools.product(range(len(weights[0])), repeat=len(places)):
        at = [
            op.Add(low, scalar(op, first + s, kind)) for low, s in zip(floors, steps, strict=True)
        ]
        weight = weights[0][steps[0]]
        for axis in range(1, len(places)):
            weight = op.Mul(weight, weights[axis][steps[axis]])
        found = op.Cast(_tap(op, image, at), to=kind)
        term = op.Mul(found, op.Unsqueeze(weight, vector(op, [2])))
        total = term if total is None else op.Add(total, term)
    assert total is not None
    return total


def _sampled(op: Tape, node: ir.Node, mode: str) -> ir.Value:
    x, grid = operand(node, 0), operand(node, 1)
    count, corners = rank(x) - 2, bool(integer(node, "align_corners"))
    if mode != "nearest" and not dtype(x).is_floating_point():
        raise CannotConvert(f"how {mode} weights round to {dtype(x).name.lower()} is not specified")
    image = _image(op, x, count, text(node, "padding_mode", "zeros"), corners)
    shape = op.Shape(grid)
    batch = op.Slice(shape, vector(op, [0]), vector(op, [1]), vector(op, [0]))
    flat = op.Reshape(
        op.Cast(grid, to=image.kind), op.Concat(batch, vector(op, [-1, count]), axis=0)
    )
    places: list[ir.Value] = []
    for axis in range(count):
        column = op.Gather(flat, _int(op, count - 1 - axis), axis=2)
        place = _denormalized(op, image, column, axis)
        place = op.Round(place) if mode == "nearest" else place
        places.append(_inside(op, image, place, axis))
    if mode == "nearest":
        found = _tap(op, image, places)
    else:
        found = op.Cast(_interpolated(op, image, places, mode), to=dtype(x))
    channels = op.Slice(op.Shape(x), vector(op, [1]), vector(op, [2]), vector(op, [0]))
    space = op.Slice(shape, vector(op, [1]), vector(op, [count + 1]), vector(op, [0]))
    whole = op.Concat(batch, channels, space, axis=0)
    return op.Reshape(op.Transpose(found, perm=[0, 2, 1]), whole)


def _denormalized(op: Tape, image: _Image, column: ir.Value, axis: int) -> ir.Value:
    """Record places in elements from places in [-1, 1]."""
    kind = image.kind
    one, two = scalar(op, 1, kind), scalar(op, 2, kind)
    size = op.Cast(image.sizes[axis], to=kind)
    shifted = op.Add(column, one)
    if image.corners:
        return op.Mul(op.Div(shifted, two), op.Sub(size, one))
    return op.Div(op.Sub(op.Mul(shifted, size), one), two)


@adapter("GridSample", 20, 16)
def modes_of_images(op: Tape, node: ir.Node) -> Outputs:
    """GridSample(x, g, mode=linear) -> GridSample(x, g, mode=bilinear), by gathers for volumes."""
    mode = text(node, "mode", "linear")
    if rank(operand(node, 0)) != 4:
        return _sampled(op, node, mode)
    old = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return op.node("GridSample", node.inputs, {**node.attributes, "mode": old})


@expansion("GridSample", 16)
def grid_sample(op: Tape, node: ir.Node) -> Outputs:
    """GridSample(x, g) -> sums of GatherND at the neighbours of every place, by their weights."""
    mode = text(node, "mode", "bilinear")
    return _sampled(op, node, {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


@expansion("DeformConv", 19)
def deform_conv(op: Tape, node: ir.Node) -> Outputs:
    """DeformConv(x, w, o, b, m) -> MatMul(w, samples of x at the moved places * m) + b."""
    x, weight, offset = (operand(node, index) for index in range(3))
    bias = optional_input(node, 3)
    kernel = integers(node, "kernel_shape") or _known((dims(weight) or [])[2:])
    if rank(x) != 4 or len(kernel) != 2:
        raise CannotConvert(
            "only images with a kernel of known size can be spelled before opset 19"
        )
    taps, groups = int(np.prod(kernel)), integer(node, "group", 1)
    out = op.Slice(op.Shape(offset), vector(op, [2]), vector(op, [4]), vector(op, [0]))
    columns = _deformed_columns(op, node, kernel, out)
    batch = op.Slice(op.Shape(x), vector(op, [0]), vector(op, [1]), vector(op, [0]))
    deep = op.Mul(_over(op, x, groups), _int(op, taps))
    split = op.Concat(batch, vector(op, [groups]), deep, vector(op, [-1]), axis=0)
    by_group = op.Concat(vector(op, [groups, -1]), deep, axis=0)
    filters = op.Reshape(op.Cast(weight, to=dtype(columns)), by_group)
    result = op.MatMul(filters, op.Reshape(columns, split))
    result = op.Reshape(result, op.Concat(batch, vector(op, [-1]), out, axis=0))
    result = op.Cast(result, to=dtype(x))
    return result if bias is None else op.Add(result, op.Reshape(bias, vector(op, [-1, 1, 1])))


def _deformed_columns(op: Tape, node: ir.Node, kernel: Sequence[int], out: ir.Value) -> ir.Value:
    """Record what each tap of the kernel reads, of shape (batch * parts, channels, taps, ...)."""
    x, offset, mask = operand(node, 0), operand(node, 2), optional_input(node, 4)
    taps, parts = int(np.prod(kernel)), integer(node, "offset_group", 1)
    sizes = op.Slice(op.Shape(x), vector(op, [2]), vector(op, [4]), vector(op, [0]))
    split = op.Reshape(x, op.Concat(vector(op, [-1]), _over(op, x, parts), sizes, axis=0))
    image = _image(op, split, 2, "zeros", corners=True)
    by_tap = op.Concat(vector(op, [-1, taps, 2]), out, axis=0)
    moved = op.Reshape(op.Cast(offset, to=image.kind), by_tap)
    places: list[ir.Value] = []
    for axis in range(2):
        shift = op.Gather(moved, _int(op, axis), axis=2)
        place = op.Add(shift, _kernel_places(op, node, out, kernel, axis))
        places.append(op.Reshape(place, _rows(op, split)))
    found = op.Transpose(_interpolated(op, image, places, "linear"), perm=[0, 2, 1])
    lead = op.Concat(vector(op, [-1]), _over(op, x, parts), vector(op, [taps]), out, axis=0)
    columns = op.Reshape(found, lead)
    if mask is None:
        return columns
    share = op.Concat(vector(op, [-1, 1, taps]), out, axis=0)
    return op.Mul(columns, op.Reshape(op.Cast(mask, to=image.kind), share))


def _known(sizes: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size is not None)


def _over(op: Tape, x: ir.Value, parts: int) -> ir.Value:
    """Record the number of channels in each of some parts."""
    channels = op.Slice(op.Shape(x), vector(op, [1]), vector(op, [2]), vector(op, [0]))
    return op.Div(channels, _int(op, parts))


def _rows(op: Tape, split: ir.Value) -> ir.Value:
    batch = op.Slice(op.Shape(split), vector(op, [0]), vector(op, [1]), vector(op, [0]))
    return op.Concat(batch, vector(op, [-1]), axis=0)


def _kernel_places(
    op: Tape, node: ir.Node, out: ir.Value, kernel: Sequence[int], axis: int
) -> ir.Value:
    """Record where each tap of the kernel lies along an axis, before it is moved."""
    stride = (integers(node, "strides") or (1, 1))[axis]
    dilation = (integers(node, "dilations") or (1, 1))[axis]
    pad = (integers(node, "pads") or (0, 0, 0, 0))[axis]
    ticks = np.arange(kernel[axis]) * dilation - pad
    taps = np.broadcast_to(ticks[:, None] if axis == 0 else ticks[None, :], tuple(kernel))
    length = op.Gather(out, _int(op, axis), axis=0)
    line = op.Mul(op.Range(_int(op, 0), length, _int(op, 1)), _int(op, stride))
    shape = [1, 1, 1]
    shape[1 + axis] = -1
    spread = op.Reshape(line, vector(op, shape))
    whole = op.Add(op.const(taps.reshape(-1, 1, 1).astype(np.int64)), spread)
    kind = _D.DOUBLE if dtype(operand(node, 0)) == _D.DOUBLE else _D.FLOAT
    return op.Cast(whole, to=kind)


@expansion("Col2Im", 18)
def column_to_image(op: Tape, node: ir.Node) -> Outputs:
    """Col2Im(x, image, block) -> ScatterElements(0, place of every element, x, reduction=add)."""
    x, image, block = (operand(node, index) for index in range(3))
    count = (dims(image) or [None])[0]
    if count is None:
        raise CannotConvert("how many axes its image has is unknown", "fix the input shapes")
    pads = integers(node, "pads") or (0,) * 2 * count
    strides = integers(node, "strides") or (1,) * count
    dilations = integers(node, "dilations") or (1,) * count
    padded = op.Add(
        image, vector(op, [a + b for a, b in zip(pads[:count], pads[count:], strict=True)])
    )
    reach = op.Add(
        op.Mul(op.Sub(block, _int(op, 1)), vector(op, dilations)), vector(op, [1] * count)
    )
    blocks = op.Add(op.Div(op.Sub(padded, reach), vector(op, strides)), _int(op, 1))
    index: ir.Value | None = None
    for axis in range(count):
        at = _places_of_columns(op, block, blocks, axis, count, dilations[axis], strides[axis])
        size = op.Gather(padded, _int(op, axis), axis=0)
        index = at if index is None else op.Add(op.Mul(index, size), at)
    assert index is not None
    lead = op.Slice(op.Shape(x), vector(op, [0]), vector(op, [1]), vector(op, [0]))
    taps = op.ReduceProd(block, axes=[0], keepdims=1)
    planes = op.Reshape(x, op.Concat(vector(op, [-1]), op.Mul(taps, _columns(op, x)), axis=0))
    total = op.ReduceProd(padded, axes=[0], keepdims=1)
    rows = op.Slice(op.Shape(planes), vector(op, [0]), vector(op, [1]), vector(op, [0]))
    zeros = op.Expand(scalar(op, 0, dtype(x)), op.Concat(rows, total, axis=0))
    places = op.Expand(op.Reshape(index, vector(op, [1, -1])), op.Shape(planes))
    for value in (zeros, places, planes):
        value.shape = ir.Shape([None, None])
    summed = op.ScatterElements(zeros, places, planes, axis=1, reduction="add")
    whole = op.Reshape(summed, op.Concat(lead, vector(op, [-1]), padded, axis=0))
    starts = vector(op, pads[:count])
    return op.Slice(whole, starts, op.Add(starts, image), vector(op, range(2, 2 + count)))


def _columns(op: Tape, x: ir.Value) -> ir.Value:
    return op.Slice(op.Shape(x), vector(op, [2]), vector(op, [3]), vector(op, [0]))


def _places_of_columns(
    op: Tape,
    block: ir.Value,
    blocks: ir.Value,
    axis: int,
    count: int,
    dilation: int,
    stride: int,
) -> ir.Value:
    """Record where every element goes along an axis, of shape (block..., blocks...)."""
    lines = []
    for sizes, step, place in ((block, dilation, axis), (blocks, stride, count + axis)):
        length = op.Gather(sizes, _int(op, axis), axis=0)
        line = op.Mul(op.Range(_int(op, 0), length, _int(op, 1)), _int(op, step))
        shape = [1] * 2 * count
        shape[place] = -1
        lines.append(op.Reshape(line, vector(op, shape)))
    return op.Expand(op.Add(lines[0], lines[1]), op.Concat(block, blocks, axis=0))
