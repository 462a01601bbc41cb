"""Resize as one matrix product, or for its nearest mode one Gather, for each axis that changes.

A runtime that lacks antialiasing ignores it, refuses it or computes something else (up to 0.56 on
unit-normal images); two matrix products say the same in operators that all have. The same way goes
what an older Resize cannot be told: scales that are not the quotients of its sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import exchanged, normalized, scalar_at
from vlmpass.rewriter_rules.opset.queries import (
    dims,
    dtype,
    integer,
    integers,
    known_or_none,
    operand,
    optional_input,
    rank,
    real,
    text,
)
from vlmpass.rewriter_rules.opset.resampling.interpolation import Filter, matrix, matrix_in_graph
from vlmpass.rewriter_rules.opset.resampling.nearest import Axis, gathered, in_advance
from vlmpass.rewriter_rules.opset.table import CannotConvert

__all__ = ["Axis", "axis_by_axis", "separable", "stretched"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def _weights(op: Tape, x: ir.Value, axis: Axis, filter_: Filter) -> ir.Value:
    """Record the matrix for an axis of x: a constant where all is known."""
    sizes = dims(x)
    n = None if sizes is None else sizes[axis.index]
    if n is not None and isinstance(axis.size, int) and not isinstance(axis.scale, ir.Value):
        return op.const(matrix(filter_, n, axis.size, axis.scale), name="weights")
    length = op.const(n) if n is not None else scalar_at(op, op.Shape(x), axis.index)
    size = op.const(axis.size) if isinstance(axis.size, int) else axis.size
    scale = axis.scale
    if isinstance(scale, float):
        scale = op.const(scale)
    return matrix_in_graph(op, filter_, length, size, scale)


def _along(op: Tape, x: ir.Value, axis: Axis, weights: ir.Value, count: int) -> ir.Value:
    if axis.index == count - 2:
        return op.MatMul(weights, x)
    if axis.index == count - 1:
        known = known_or_none(weights)
        turned = op.Transpose(weights, perm=[1, 0]) if known is None else op.const(known.T.copy())
        return op.MatMul(x, turned)
    order = exchanged(count, axis.index, count - 2)
    return op.Transpose(op.MatMul(weights, op.Transpose(x, perm=order)), perm=order)


def separable(op: Tape, x: ir.Value, axes: Sequence[Axis], filter_: Filter) -> ir.Value:
    """Record an interpolation along some axes, one matrix product each, in float32 or wider.

    Args:
        op: The tape; its nodes are valid from opset 13 on.
        x: Any floating-point tensor of known rank.
        axes: The axes that change.
        filter_: The kind of interpolation.

    Raises:
        CannotConvert: The image's type is not one in which interpolation is specified.
    """
    if not axes:
        return op.Identity(x)
    kind = dtype(x)
    if kind not in _FLOATS:
        raise CannotConvert(
            f"how interpolation rounds {kind.name.lower()} is not specified",
            "cast the image to float32 before the resize",
        )
    if kind == ir.DataType.DOUBLE:
        raise CannotConvert(
            "its matrices are float32 and its image is double", "cast the image to float32"
        )
    weights = [_weights(op, x, axis, filter_) for axis in axes]
    folded = in_advance(op, x, axes, weights)
    if folded is not None:
        return folded
    y = x if kind == ir.DataType.FLOAT else op.Cast(x, to=ir.DataType.FLOAT)
    for axis, matrix_ in zip(axes, weights, strict=True):
        y = _along(op, y, axis, matrix_, rank(x))
    return y if kind == ir.DataType.FLOAT else op.Cast(y, to=kind)


def _filter(node: ir.Node) -> Filter:
    kernel: Literal["linear", "cubic"] = "cubic" if text(node, "mode") == "cubic" else "linear"
    widens = bool(integer(node, "antialias"))
    # Without antialiasing runtimes ask for the excluded outside of the cubic kernel only.
    outside = bool(integer(node, "exclude_outside")) and (widens or kernel == "cubic")
    coefficient = real(node, "cubic_coeff_a", -0.75)
    return Filter(kernel, coefficient, outside, _coordinates(node), widens=widens)


def _coordinates(node: ir.Node) -> str:
    found = text(node, "coordinate_transformation_mode", "half_pixel")
    if found == "tf_half_pixel_for_nn" and text(node, "mode", "nearest") != "nearest":
        raise CannotConvert("what tf_half_pixel_for_nn means for linear and cubic is not specified")
    if found == "tf_crop_and_resize":
        raise CannotConvert(
            "tf_crop_and_resize has no form axis by axis that older opsets could spell"
        )
    return found


def _same_size(x: ir.Value, y: ir.Value, axis: int) -> bool:
    """Say whether an axis provably keeps its size: the same number, or the same symbol."""
    if x.shape is None or y.shape is None or len(x.shape) != len(y.shape):
        return False
    before, after = x.shape[axis], y.shape[axis]
    if isinstance(before, int) or isinstance(after, int):
        return before == after
    return before.value is not None and before.value == after.value


def _by_scales(op: Tape, x: ir.Value, places: Sequence[int], scales: ir.Value) -> list[Axis]:
    found = known_or_none(scales)
    sizes = dims(x)
    axes: list[Axis] = []
    for index, place in enumerate(places):
        n = None if sizes is None else sizes[place]
        if found is not None:
            scale = float(found.reshape(-1)[index])
            if scale == 1.0:
                continue
            if n is not None:
                m = int(np.float32(n) * np.float32(scale))
                axes.append(Axis(place, m, None if m == n * scale else scale))
                continue
            factor = op.const(scale)
        else:
            factor = scalar_at(op, scales, index)
        length = op.Cast(scalar_at(op, op.Shape(x), place), to=ir.DataType.FLOAT)
        size = op.Cast(op.Floor(op.Mul(length, factor)), to=ir.DataType.INT64)
        axes.append(Axis(place, size, factor))
    return axes


def _by_sizes(op: Tape, node: ir.Node, places: Sequence[int], sizes: ir.Value) -> list[Axis]:
    x, y, found = operand(node, 0), node.outputs[0], known_or_none(sizes)
    lengths = dims(x)
    axes: list[Axis] = []
    for index, place in enumerate(places):
        if _same_size(x, y, place):
            continue
        if found is None:
            axes.append(Axis(place, scalar_at(op, sizes, index)))
            continue
        m = int(found.reshape(-1)[index])
        if lengths is None or lengths[place] != m:
            axes.append(Axis(place, m))
    return axes


def _keeping_aspect(
    op: Tape, node: ir.Node, places: Sequence[int], sizes: ir.Value, policy: str
) -> list[Axis]:
    """Return axes with one scale for all, the smaller or larger; each size rounded half up."""
    x, found = operand(node, 0), known_or_none(sizes)
    known = dims(x) or [None] * rank(x)
    lengths = [n for place in places if (n := known[place]) is not None]
    smallest = policy == "not_larger"
    if found is not None and len(lengths) == len(places):
        ratios = [float(m) / n for m, n in zip(found.reshape(-1), lengths, strict=True)]
        scale = min(ratios) if smallest else max(ratios)
        sized = [int(np.floor(scale * n + 0.5)) for n in lengths]
        return [
            Axis(place, m, None if m == n * scale else scale)
            for place, n, m in zip(places, lengths, sized, strict=True)
            if n != m or scale != 1.0
        ]
    chosen = op.Gather(op.Shape(x), op.const(np.array(places, np.int64)), axis=0)
    floats = op.Cast(chosen, to=ir.DataType.FLOAT)
    quotients = op.Div(op.Cast(sizes, to=ir.DataType.FLOAT), floats)
    reduce = op.ReduceMin if smallest else op.ReduceMax
    factor = reduce(quotients, keepdims=0)
    rounded = op.Floor(op.Add(op.Mul(floats, factor), op.const(0.5)))
    whole = op.Cast(rounded, to=ir.DataType.INT64)
    return [Axis(place, scalar_at(op, whole, k), factor) for k, place in enumerate(places)]


def axis_by_axis(op: Tape, node: ir.Node) -> ir.Value:
    """Resize(x, sizes | scales) -> M(H) @ x @ M(W)^T, or Gathers of the nearest.

    Args:
        op: The tape; its nodes are valid from opset 13 on.
        node: A Resize of opset 11 or later.

    Raises:
        CannotConvert: It says neither scales nor sizes.
    """
    x, scales, sizes = operand(node, 0), optional_input(node, 2), optional_input(node, 3)
    count = rank(x)
    axes = integers(node, "axes")
    places = [*range(count)] if axes is None else [normalized(axis, count) for axis in axes]
    policy = text(node, "keep_aspect_ratio_policy", "stretch")
    if sizes is not None and policy != "stretch":
        changed = _keeping_aspect(op, node, places, sizes, policy)
    elif sizes is not None:
        changed = _by_sizes(op, node, places, sizes)
    elif scales is not None:
        changed = _by_scales(op, x, places, scales)
    else:
        raise CannotConvert("it has neither scales nor sizes", "correct the model")
    if text(node, "mode", "nearest") == "nearest":
        rounding = text(node, "nearest_mode", "round_prefer_floor")
        return gathered(op, x, changed, _coordinates(node), rounding)
    return separable(op, x, changed, _filter(node))


def stretched(op: Tape, x: ir.Value, scales: ir.Value, mode: str) -> ir.Value:
    """Record a Resize of opset 10, which begins at the first element and rounds down.

    Args:
        op: The tape; its nodes are valid from opset 13 on.
        x: Any tensor of known rank.
        scales: A float for each of its axes.
        mode: ``nearest`` or ``linear``.
    """
    axes = _by_scales(op, x, range(rank(x)), scales)
    if mode == "nearest":
        return gathered(op, x, axes, "asymmetric", "floor")
    return separable(op, x, axes, Filter("linear", coordinates="asymmetric", widens=False))
