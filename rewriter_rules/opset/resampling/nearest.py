"""Interpolation by the nearest input along one axis, as a Gather at places computed here or there.

Places are computed in float32, as runtimes do, so that ties fall on the same side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import arange, scalar_at
from vlmpass.rewriter_rules.opset.queries import constant, dims
from vlmpass.rewriter_rules.opset.resampling.resized import resized

__all__ = ["Axis", "gathered", "in_advance"]

_FLOAT, _INT64 = ir.DataType.FLOAT, ir.DataType.INT64


@dataclass(frozen=True)
class Axis:
    """One axis to interpolate along.

    Attributes:
        index: Which one, counted from the front.
        size: Its new size: known, or an int64 scalar of the graph.
        scale: Its scale if that is not the quotient of the sizes; known, or a float32 scalar.
    """

    index: int
    size: int | ir.Value
    scale: float | ir.Value | None = None


def _indices(
    n: int, m: int, scale: float | None, coordinates: str, rounding: str
) -> npt.NDArray[np.int64]:
    i, half, one = np.arange(m, dtype=np.float32), np.float32(0.5), np.float32(1)
    step = np.float32(m) / np.float32(n) if scale is None else np.float32(scale)
    if coordinates == "align_corners":
        place = i * np.float32(n - 1) / np.float32(m - 1) if m > 1 else i * 0
    elif coordinates == "asymmetric":
        place = i / step
    elif coordinates == "tf_half_pixel_for_nn":
        place = (i + half) / step
    else:
        place = (i + half) / step - half
        if coordinates == "half_pixel_symmetric":
            shift = np.float32(n) * half * (one - np.float32(m) / (step * np.float32(n)))
            place = shift + place
        elif coordinates == "pytorch_half_pixel" and m == 1:
            place = i * 0
    if rounding == "floor":
        near = np.floor(place)
    elif rounding == "ceil":
        near = np.ceil(place)
    else:
        near = np.ceil(place - half) if rounding == "round_prefer_floor" else np.floor(place + half)
    return np.clip(near, 0, n - 1).astype(np.int64)


@dataclass(frozen=True)
class _Sizes:
    """Old and new size and the scale of an axis in the graph, float32 scalars."""

    n: ir.Value
    m: ir.Value
    scale: ir.Value


def _places(op: Tape, i: ir.Value, sizes: _Sizes, coordinates: str) -> ir.Value:
    """Record the place among the inputs of each output i."""
    half, one, zero = op.const(0.5), op.const(1.0), op.const(0.0)
    if coordinates == "align_corners":
        steps = op.Max(op.Sub(sizes.m, one), one)
        return op.Div(op.Mul(i, op.Sub(sizes.n, one)), steps)
    if coordinates == "asymmetric":
        return op.Div(i, sizes.scale)
    place = op.Div(op.Add(i, half), sizes.scale)
    if coordinates == "tf_half_pixel_for_nn":
        return place
    place = op.Sub(place, half)
    if coordinates == "pytorch_half_pixel":
        return op.Where(op.Equal(sizes.m, one), zero, place)
    if coordinates == "half_pixel_symmetric":
        share = op.Div(sizes.m, op.Mul(sizes.scale, sizes.n))
        shift = op.Mul(op.Mul(sizes.n, half), op.Sub(one, share))
        return op.Add(shift, place)
    return place


def _rounded(op: Tape, place: ir.Value, rounding: str) -> ir.Value:
    half = op.const(0.5)
    if rounding == "round_prefer_floor":
        return op.Ceil(op.Sub(place, half))
    if rounding == "round_prefer_ceil":
        return op.Floor(op.Add(place, half))
    return op.Floor(place) if rounding == "floor" else op.Ceil(place)


def _recorded(
    op: Tape, x: ir.Value, axis: Axis, n: int | None, coordinates: str, rounding: str
) -> ir.Value:
    """Record the indices for an axis: a constant where all is known."""
    scale = axis.scale
    if n is not None and isinstance(axis.size, int) and not isinstance(scale, ir.Value):
        return op.const(_indices(n, axis.size, scale, coordinates, rounding), name="indices")
    length = op.const(n) if n is not None else scalar_at(op, op.Shape(x), axis.index)
    size = op.const(axis.size) if isinstance(axis.size, int) else axis.size
    wide = op.Cast(length, to=_FLOAT), op.Cast(size, to=_FLOAT)
    if isinstance(scale, float):
        scale = op.const(scale)
    sizes = _Sizes(*wide, op.Div(wide[1], wide[0]) if scale is None else scale)
    i = op.Cast(arange(op, size), to=_FLOAT)
    near = _rounded(op, _places(op, i, sizes, coordinates), rounding)
    inside = op.Min(op.Max(near, op.const(0.0)), op.Sub(sizes.n, op.const(1.0)))
    return op.Cast(inside, to=_INT64)


def gathered(
    op: Tape, x: ir.Value, axes: Sequence[Axis], coordinates: str, rounding: str
) -> ir.Value:
    """Record the nearest inputs along some axes.

    Args:
        op: The tape; its nodes are valid from opset 13 on.
        x: A tensor of any type.
        axes: The axes that change.
        coordinates: Coordinate transformation mode of ONNX Resize.
        rounding: Its nearest_mode.
    """
    lengths, y = dims(x), x
    indices = [
        _recorded(
            op, x, axis, None if lengths is None else lengths[axis.index], coordinates, rounding
        )
        for axis in axes
    ]
    folded = in_advance(op, x, axes, indices)
    if folded is not None:
        return folded
    for axis, at in zip(axes, indices, strict=True):
        y = op.Gather(y, at, axis=axis.index)
    return y if axes else op.Identity(x)


def in_advance(
    op: Tape, x: ir.Value, axes: Sequence[Axis], parts: Sequence[ir.Value]
) -> ir.Value | None:
    """Record the interpolation of a constant by constants as a constant; None if one varies.

    Args:
        op: The tape.
        x: The image.
        axes: The axes that change.
        parts: For each its matrix of weights or its indices.
    """
    image = constant(x)
    known = [part.const_value for part in parts if part.producer() is None]
    fixed = [tensor.numpy() for tensor in known if tensor is not None]
    if image is None or not axes or len(fixed) < len(axes) or image.dtype == ir.DataType.STRING:
        return None
    tensor = resized(image, [axis.index for axis in axes], fixed)
    return None if tensor is None else op.const(tensor, name="resized")
