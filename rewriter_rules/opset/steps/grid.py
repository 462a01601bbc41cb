"""Sampling at computed places by gather arithmetic: GridSample, deformed convolution, Col2Im."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import (
    along,
    arange,
    blank,
    part,
    scalar,
    scalar_at,
    sizes_of,
    vector,
)
from vlmpass.rewriter_rules.opset.queries import (
    dims,
    dtype,
    integer,
    integers,
    operand,
    operands,
    optional_input,
    rank,
    text,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType


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
    sizes = [scalar_at(op, shape, 2 + axis) for axis in range(count)]
    lead = part(op, shape, 0, 2)
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
    span = op.Where(op.Equal(op.Cast(span, to=_D.INT64), op.const(0)), one, span)
    far = op.Abs(op.Sub(place, low))
    laps = op.Floor(op.Div(far, span))
    rest = op.Sub(far, op.Mul(laps, span))
    odd = op.Greater(op.Sub(laps, op.Mul(op.Floor(op.Div(laps, two)), two)), zero)
    return op.Where(odd, op.Sub(high, rest), op.Add(low, rest))


def _inside(op: Tape, image: _Image, place: ir.Value, axis: int) -> ir.Value:
    """Record a place moved into the image where its padding asks for that."""
    if image.padding == "border":
        last = op.Cast(op.Sub(image.sizes[axis], op.const(1)), to=image.kind)
        return op.Min(op.Max(place, scalar(op, 0, image.kind)), last)
    return _reflected(op, image, place, axis) if image.padding == "reflection" else place


def _tap(op: Tape, image: _Image, places: Sequence[ir.Value]) -> ir.Value:
    """Record the elements at whole places, one float of shape (batch, outputs) for each axis."""
    index, valid = None, None
    for axis, place in enumerate(places):
        whole = op.Cast(_inside(op, image, place, axis), to=_D.INT64)
        last = op.Sub(image.sizes[axis], op.const(1))
        safe = op.Min(op.Max(whole, op.const(0)), last)
        if image.padding == "zeros":
            here = op.Equal(safe, whole)
            valid = here if valid is None else op.And(valid, here)
        index = safe if index is None else op.Add(op.Mul(index, image.sizes[axis]), safe)
    assert index is not None
    found = op.GatherND(image.rows, op.Unsqueeze(index, vector(op, [2])), batch_dims=1)
    if valid is None:
        return found
    kind = dtype(image.rows)
    filler = blank(op, kind)
    return op.Where(op.Unsqueeze(valid, vector(op, [2])), found, filler)


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
    x, grid = operands(node, 2)
    count, corners = rank(x) - 2, bool(integer(node, "align_corners"))
    if mode != "nearest" and not dtype(x).is_floating_point():
        raise CannotConvert(f"how {mode} weights round to {dtype(x).name.lower()} is not specified")
    image = _image(op, x, count, text(node, "padding_mode", "zeros"), corners)
    shape = op.Shape(grid)
    batch = part(op, shape, 0, 1)
    flat = op.Reshape(
        op.Cast(grid, to=image.kind), op.Concat(batch, vector(op, [-1, count]), axis=0)
    )
    places: list[ir.Value] = []
    for axis in range(count):
        column = op.Gather(flat, op.const(count - 1 - axis), axis=2)
        place = _denormalized(op, image, column, axis)
        place = op.Round(place) if mode == "nearest" else place
        # PyTorch and ONNX Runtime move the four neighbours of a cubic place, and not the place.
        places.append(place if mode == "cubic" else _inside(op, image, place, axis))
    if mode == "nearest":
        found = _tap(op, image, places)
    else:
        found = op.Cast(_interpolated(op, image, places, mode), to=dtype(x))
    channels = sizes_of(op, x, 1, 2)
    space = part(op, shape, 1, count + 1)
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
    x, bias = operand(node, 0), optional_input(node, 3)
    kernel, out = _kernel_of_images(node), sizes_of(op, operand(node, 2), 2, 4)
    columns = _deformed_columns(op, node, kernel, out)
    batch = sizes_of(op, x, 0, 1)
    result = _by_group(op, node, columns, batch, int(np.prod(kernel)))
    result = op.Cast(
        op.Reshape(result, op.Concat(batch, vector(op, [-1]), out, axis=0)), to=dtype(x)
    )
    return result if bias is None else op.Add(result, op.Reshape(bias, vector(op, [-1, 1, 1])))


def _kernel_of_images(node: ir.Node) -> tuple[int, ...]:
    x, weight = operands(node, 2)
    kernel = integers(node, "kernel_shape") or _known((dims(weight) or [])[2:])
    if rank(x) != 4 or len(kernel) != 2:
        raise CannotConvert(
            "only images with a kernel of known size can be spelled before opset 19"
        )
    return kernel


def _by_group(op: Tape, node: ir.Node, columns: ir.Value, batch: ir.Value, taps: int) -> ir.Value:
    """Record the filters of each group times what their taps read."""
    x, weight = operands(node, 2)
    groups = integer(node, "group", 1)
    deep = op.Mul(_over(op, x, groups), op.const(taps))
    split = op.Concat(batch, vector(op, [groups]), deep, vector(op, [-1]), axis=0)
    by_group = op.Concat(vector(op, [groups, -1]), deep, axis=0)
    filters = op.Reshape(op.Cast(weight, to=dtype(columns)), by_group)
    return op.MatMul(filters, op.Reshape(columns, split))


def _deformed_columns(op: Tape, node: ir.Node, kernel: Sequence[int], out: ir.Value) -> ir.Value:
    """Record what each tap of the kernel reads, of shape (batch * parts, channels, taps, ...)."""
    x, offset, mask = operand(node, 0), operand(node, 2), optional_input(node, 4)
    taps, parts = int(np.prod(kernel)), integer(node, "offset_group", 1)
    sizes = sizes_of(op, x, 2, 4)
    split = op.Reshape(x, op.Concat(vector(op, [-1]), _over(op, x, parts), sizes, axis=0))
    image = _image(op, split, 2, "zeros", corners=True)
    by_tap = op.Concat(vector(op, [-1, taps, 2]), out, axis=0)
    moved = op.Reshape(op.Cast(offset, to=image.kind), by_tap)
    places: list[ir.Value] = []
    for axis in range(2):
        shift = op.Gather(moved, op.const(axis), axis=2)
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
    return op.Div(sizes_of(op, x, 1, 2), op.const(parts))


def _rows(op: Tape, split: ir.Value) -> ir.Value:
    return op.Concat(sizes_of(op, split, 0, 1), vector(op, [-1]), axis=0)


def _kernel_places(
    op: Tape, node: ir.Node, out: ir.Value, kernel: Sequence[int], axis: int
) -> ir.Value:
    """Record where each tap of the kernel lies along an axis, before it is moved."""
    stride = (integers(node, "strides") or (1, 1))[axis]
    dilation = (integers(node, "dilations") or (1, 1))[axis]
    pad = (integers(node, "pads") or (0, 0, 0, 0))[axis]
    ticks = np.arange(kernel[axis]) * dilation - pad
    taps = np.broadcast_to(ticks[:, None] if axis == 0 else ticks[None, :], tuple(kernel))
    line = op.Mul(arange(op, scalar_at(op, out, axis)), op.const(stride))
    spread = along(op, line, 1 + axis, 3)
    whole = op.Add(op.const(taps.reshape(-1, 1, 1).astype(np.int64)), spread)
    kind = _D.DOUBLE if dtype(operand(node, 0)) == _D.DOUBLE else _D.FLOAT
    return op.Cast(whole, to=kind)


@expansion("Col2Im", 18)
def column_to_image(op: Tape, node: ir.Node) -> Outputs:
    """Col2Im(x, image, block) -> ScatterElements(0, place of every element, x, reduction=add)."""
    x, image, block = operands(node, 3)
    starts, ends = _pads_of_image(node)
    padded = op.Add(image, vector(op, [a + b for a, b in zip(starts, ends, strict=True)]))
    index = _index_in_image(op, node, block, padded)
    lead = sizes_of(op, x, 0, 1)
    summed = _summed_at(op, x, index, block, padded)
    whole = op.Reshape(summed, op.Concat(lead, vector(op, [-1]), padded, axis=0))
    first = vector(op, starts)
    return op.Slice(whole, first, op.Add(first, image), vector(op, range(2, 2 + len(starts))))


def _pads_of_image(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the pads before and after each axis of the image."""
    count = (dims(operand(node, 1)) or [None])[0]
    if count is None:
        raise CannotConvert("how many axes its image has is unknown", "fix the input shapes")
    pads = integers(node, "pads") or (0,) * 2 * count
    return pads[:count], pads[count:]


def _index_in_image(op: Tape, node: ir.Node, block: ir.Value, padded: ir.Value) -> ir.Value:
    """Record where every element goes in the image as a line, of shape (block..., blocks...)."""
    count = len(_pads_of_image(node)[0])
    strides = integers(node, "strides") or (1,) * count
    dilations = integers(node, "dilations") or (1,) * count
    reach = op.Add(
        op.Mul(op.Sub(block, op.const(1)), vector(op, dilations)), vector(op, [1] * count)
    )
    blocks = op.Add(op.Div(op.Sub(padded, reach), vector(op, strides)), op.const(1))
    index: ir.Value | None = None
    for axis in range(count):
        at = _places_of_columns(op, block, blocks, axis, count, dilations[axis], strides[axis])
        size = scalar_at(op, padded, axis)
        index = at if index is None else op.Add(op.Mul(index, size), at)
    assert index is not None
    return index


def _summed_at(
    op: Tape, x: ir.Value, index: ir.Value, block: ir.Value, padded: ir.Value
) -> ir.Value:
    """Record the sum of all elements that go to one place, an image as a line for each channel."""
    taps = op.ReduceProd(block, axes=[0], keepdims=1)
    whole = vector(op, [-1])
    planes = op.Reshape(x, op.Concat(whole, op.Mul(taps, sizes_of(op, x, 2, 3)), axis=0))
    total = op.ReduceProd(padded, axes=[0], keepdims=1)
    rows = sizes_of(op, planes, 0, 1)
    zeros = op.Expand(scalar(op, 0, dtype(x)), op.Concat(rows, total, axis=0))
    places = op.Expand(op.Reshape(index, vector(op, [1, -1])), op.Shape(planes))
    for value in (zeros, places, planes):
        value.shape = ir.Shape([None, None])
    return op.ScatterElements(zeros, places, planes, axis=1, reduction="add")


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
        line = op.Mul(arange(op, scalar_at(op, sizes, axis)), op.const(step))
        lines.append(along(op, line, place, 2 * count))
    return op.Expand(op.Add(lines[0], lines[1]), op.Concat(block, blocks, axis=0))
