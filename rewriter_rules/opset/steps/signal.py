"""Fourier transforms, mel filters and affine grids, spelled by matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import INFER_FIRST
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import (
    along,
    arange,
    normalized,
    part,
    scalar,
    scalar_at,
    vector,
)
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dims,
    dtype,
    integer,
    known_or_none,
    operand,
    operands,
    optional_input,
    rank,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType
_END = 2**31 - 1


@adapter("DFT", 17, 20)
def axis_becomes_input(op: Tape, node: ir.Node) -> Outputs:
    """DFT(x, n, axis=a) -> DFT(x, n, a)."""
    inputs = [node.inputs[0], optional_input(node, 1), op.const(integer(node, "axis", 1))]
    return again(op, node, inputs, drop=("axis",))


@adapter("DFT", 20, 17)
def axis_becomes_attribute(op: Tape, node: ir.Node) -> Outputs:
    """DFT(x, n, a) -> DFT(x, n, axis=a), by matrix products if a varies."""
    x, axis = operand(node, 0), optional_input(node, 2)
    fixed = np.array(-2) if axis is None else known_or_none(axis)
    if fixed is None:
        assert axis is not None
        place = op.Mod(op.Reshape(axis, vector(op, [1])), vector(op, [rank(x)]))
        return _transform(op, node, x, place, optional_input(node, 1))
    at = normalized(int(fixed.reshape(-1)[0]), rank(x))
    return again(op, node, node.inputs[:2], axis=at)


@expansion("DFT", 17)
def transform(op: Tape, node: ir.Node) -> Outputs:
    """DFT(x, n) -> MatMul(cos, x) and MatMul(sin, x)."""
    x = operand(node, 0)
    at = normalized(integer(node, "axis", 1), rank(x))
    return _transform(op, node, x, vector(op, [at]), optional_input(node, 1))


@expansion("STFT", 17)
def short_time_transform(op: Tape, node: ir.Node) -> Outputs:
    """STFT(x, step, w) -> MatMul(cos and sin, Gather(x, frames) * w)."""
    window = optional_input(node, 2)
    frames = _frames(op, node, _frame_length(op, node))
    if window is not None:
        shape = frames.shape
        frames = op.Mul(frames, op.Unsqueeze(window, vector(op, [1])))
        frames.shape = shape
    return _transform(op, node, frames, vector(op, [2]), None, onesided=1)


def _frame_length(op: Tape, node: ir.Node) -> ir.Value:
    window, given = optional_input(node, 2), optional_input(node, 3)
    if given is not None:
        return op.Cast(op.Reshape(given, vector(op, [])), to=_D.INT64)
    if window is not None:
        return op.Size(window)
    raise CannotConvert("it has neither a window nor a frame length", "correct the model")


def _frames(op: Tape, node: ir.Node, length: ir.Value) -> ir.Value:
    """Record the frames of a signal, one every so many steps."""
    x, step = operands(node, 2)
    hop = op.Cast(op.Reshape(step, vector(op, [])), to=_D.INT64)
    whole = scalar_at(op, op.Shape(x), 1)
    count = op.Add(op.Div(op.Sub(whole, length), hop), op.const(1))
    starts = op.Mul(arange(op, count), hop)
    steps = arange(op, length)
    frames = op.Gather(x, op.Add(op.Unsqueeze(starts, vector(op, [1])), steps), axis=1)
    frames.shape = ir.Shape([None, None, None, (dims(x) or [None])[-1]])
    return frames


def _transform(
    op: Tape,
    node: ir.Node,
    x: ir.Value,
    place: ir.Value,
    length: ir.Value | None,
    *,
    onesided: int = 0,
) -> ir.Value:
    """Record the transform along an axis that is given as an int64 vector of one element."""
    kind = dtype(operand(node, 0))
    parts = (dims(x) or [None])[-1]
    if parts not in (1, 2):
        raise CannotConvert("whether its input is real or complex is unknown", INFER_FIRST)
    half = bool(integer(node, "onesided", onesided))
    inverse = bool(integer(node, "inverse"))
    shape = op.Shape(x)
    have = op.Gather(shape, place, axis=0)
    total = _length(op, have, length, half and inverse)
    bins = op.Add(op.Div(total, op.const(2)), op.const(1)) if half else total
    source, target = (bins, total) if inverse else (total, bins)
    zero = vector(op, [0])
    lead = op.Slice(shape, zero, place, zero)
    tail = op.Slice(shape, op.Add(place, vector(op, [1])), vector(op, [-1]), zero)
    wide = _D.DOUBLE  # The sums of a fast transform are better than those of float products.
    before, after = (op.ReduceProd(each, axes=[0], keepdims=1) for each in (lead, tail))
    folded = op.Concat(before, have, after, vector(op, [parts]), axis=0)
    block = _fitted(op, op.Reshape(op.Cast(x, to=wide), folded), have, source)
    real, imaginary = _rotated(op, block, target, source, total, parts, inverse)
    if inverse and half:
        result, last = _sum(op, real), 1
    else:
        result = op.Concat(_sum(op, real), _sum(op, imaginary), axis=-1)
        last = 2
    if inverse:
        result = op.Div(result, op.Cast(total, to=wide))
    whole = op.Concat(lead, target, tail, vector(op, [last]), axis=0)
    return op.Cast(op.Reshape(result, whole), to=kind)


def _sum(op: Tape, terms: Sequence[ir.Value]) -> ir.Value:
    return terms[0] if len(terms) == 1 else op.Add(terms[0], terms[1])


def _length(op: Tape, have: ir.Value, length: ir.Value | None, doubled: bool) -> ir.Value:
    if length is not None:
        return op.Cast(op.Reshape(length, vector(op, [1])), to=_D.INT64)
    return op.Mul(op.Sub(have, op.const(1)), op.const(2)) if doubled else have


def _fitted(op: Tape, block: ir.Value, have: ir.Value, want: ir.Value) -> ir.Value:
    """Record a block cut or filled with zeros to a length of axis 1."""
    missing = op.Max(op.Sub(want, have), vector(op, [0]))
    pads = op.Concat(vector(op, [0] * 5), missing, vector(op, [0, 0]), axis=0)
    return op.Slice(op.Pad(block, pads), vector(op, [0]), want, vector(op, [1]))


def _rotated(
    op: Tape,
    block: ir.Value,
    target: ir.Value,
    source: ir.Value,
    total: ir.Value,
    parts: int,
    inverse: bool,
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Record the terms of the real and of the imaginary parts of the transform."""
    kind = dtype(block)
    rows, columns = (
        op.Range(op.const(0), op.Squeeze(each, vector(op, [0])), op.const(1))
        for each in (target, source)
    )
    turns = op.Mod(op.Mul(op.Unsqueeze(rows, vector(op, [1])), columns), total)
    angle = op.Div(
        op.Mul(op.Cast(turns, to=kind), scalar(op, 2 * math.pi, kind)), op.Cast(total, to=kind)
    )
    cos, sin = op.Cos(angle), op.Sin(angle)
    if inverse:
        cos, sin = (_mirrored(op, m, columns, source, total) for m in (cos, op.Neg(sin)))
    pieces = [_part(op, block, index) for index in range(parts)]
    real = [_product(op, cos, pieces[0])]
    imaginary = [op.Neg(_product(op, sin, pieces[0]))]
    if parts == 2:
        real.append(_product(op, sin, pieces[1]))
        imaginary.append(_product(op, cos, pieces[1]))
    return real, imaginary


def _mirrored(
    op: Tape, matrix: ir.Value, columns: ir.Value, source: ir.Value, total: ir.Value
) -> ir.Value:
    """Count twice the columns that stand for their mirror images, where these are left out."""
    twice = op.Mul(columns, op.const(2))
    alone = op.Or(op.Equal(twice, op.const(0)), op.Equal(twice, total))
    every = op.Or(alone, op.Equal(source, total))
    kind = dtype(matrix)
    return op.Mul(matrix, op.Where(every, scalar(op, 1, kind), scalar(op, 2, kind)))


def _part(op: Tape, block: ir.Value, index: int) -> ir.Value:
    bounds = [vector(op, [each]) for each in (index, index + 1, 3)]
    return op.Slice(block, *bounds)


def _product(op: Tape, matrix: ir.Value, part: ir.Value) -> ir.Value:
    """Record matrix @ part over axis 1 of (before, length, after, 1)."""
    flat = op.Squeeze(part, vector(op, [3]))
    return op.Unsqueeze(op.MatMul(matrix, flat), vector(op, [3]))


@expansion("MelWeightMatrix", 17)
def mel_filters(op: Tape, node: ir.Node) -> Outputs:
    """MelWeightMatrix(...) -> the rising and falling flanks of each triangle of mel bins."""
    kind = _D(integer(node, "output_datatype", 1))
    bins, length, rate = (op.Cast(each, to=_D.INT64) for each in operands(node, 3))
    low, high = (op.Cast(operand(node, index), to=_D.DOUBLE) for index in (3, 4))
    ten, one, base = (scalar(op, each, _D.DOUBLE) for each in (math.log(10) / 2595, 1, 700))
    hertz = _mel_hertz(op, bins, (low, high), (ten, one, base))
    scaled = op.Mul(op.Cast(op.Add(length, op.const(1)), to=_D.DOUBLE), hertz)
    edges = op.Floor(op.Div(scaled, op.Cast(rate, to=_D.DOUBLE)))
    return op.Cast(_triangles(op, edges, length, one), to=kind)


def _mel_hertz(
    op: Tape,
    bins: ir.Value,
    ends: tuple[ir.Value, ir.Value],
    constants: tuple[ir.Value, ir.Value, ir.Value],
) -> ir.Value:
    """Record the frequencies between two ends that are equally far apart in mel."""
    ten, one, base = constants
    low, high = (op.Div(op.Log(op.Add(one, op.Div(each, base))), ten) for each in ends)
    points = op.Add(bins, op.const(2))
    step = op.Div(op.Sub(high, low), op.Cast(points, to=_D.DOUBLE))
    line = op.Cast(arange(op, points), to=_D.DOUBLE)
    mel = op.Mul(op.Add(op.Mul(line, step), low), ten)
    return op.Mul(base, op.Sub(op.Exp(mel), one))


def _triangles(op: Tape, edges: ir.Value, length: ir.Value, one: ir.Value) -> ir.Value:
    """Record for each place of a spectrum how far it lies up or down each bin's triangle."""
    left, middle, right = (
        part(op, edges, first, last) for first, last in ((0, -2), (1, -1), (2, _END))
    )
    rows = op.Add(op.Div(length, op.const(2)), op.const(1))
    place = op.Cast(arange(op, rows), to=_D.DOUBLE)
    place = op.Unsqueeze(place, vector(op, [1]))
    rising = op.Div(op.Sub(place, left), op.Max(op.Sub(middle, left), one))
    falling = op.Div(op.Sub(right, place), op.Max(op.Sub(right, middle), one))
    peak = op.Where(op.Equal(left, middle), one, rising)
    zero = scalar(op, 0, _D.DOUBLE)
    inside = op.Not(op.Or(op.Less(place, left), op.Greater(place, middle)))
    beyond = op.And(op.Not(op.Less(place, middle)), op.Less(place, right))
    return op.Where(beyond, falling, op.Where(inside, peak, zero))


@expansion("AffineGrid", 20)
def affine_grid(op: Tape, node: ir.Node) -> Outputs:
    """AffineGrid(theta, size) -> MatMul(every place of the grid, theta^T)."""
    theta, size = operands(node, 2)
    count = _spatial_axes(theta)
    one = vector(op, [1])
    space = part(op, size, 2, 2 + count)
    places = _grid_places(op, node, space, count)
    grid = op.MatMul(op.Concat(*places, axis=1), op.Transpose(theta, perm=[0, 2, 1]))
    batch = op.Slice(size, vector(op, [0]), one, vector(op, [0]))
    return op.Reshape(grid, op.Concat(batch, space, vector(op, [count]), axis=0))


def _spatial_axes(theta: ir.Value) -> int:
    count = (dims(theta) or [None, None])[1]
    if count not in (2, 3):
        raise CannotConvert(
            "whether its grid is of images or of volumes is unknown", "fix the input shapes"
        )
    return count


def _grid_places(op: Tape, node: ir.Node, space: ir.Value, count: int) -> list[ir.Value]:
    """Record the coordinates of every place of a grid and a 1, as columns."""
    kind, places = dtype(operand(node, 0)), []
    for axis in reversed(range(count)):
        line = _normalized_line(op, space, axis, kind, bool(integer(node, "align_corners")))
        places.append(op.Expand(along(op, line, axis, count), space))
    places.append(op.Expand(scalar(op, 1, kind), space))
    return [op.Reshape(each, vector(op, [-1, 1])) for each in places]


def _normalized_line(
    op: Tape, space: ir.Value, axis: int, kind: ir.DataType, corners: bool
) -> ir.Value:
    """Record the places along one axis of a grid, from -1 to 1."""
    length = scalar_at(op, space, axis)
    wide = op.Cast(length, to=kind)
    line = op.Cast(arange(op, length), to=kind)
    two, one = scalar(op, 2, kind), scalar(op, 1, kind)
    if corners:
        return op.Sub(op.Div(op.Mul(line, two), op.Sub(wide, one)), one)
    return op.Sub(op.Div(op.Add(op.Mul(line, two), one), wide), one)
