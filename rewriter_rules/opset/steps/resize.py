"""Resize and Upsample: coordinate modes that were once defaults, axes, optional inputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import at_opset, normalized, vector, without
from vlmpass.rewriter_rules.opset.queries import (
    again,
    attribute,
    dims,
    integer,
    integers,
    known,
    known_or_none,
    operand,
    optional_input,
    rank,
    text,
)
from vlmpass.rewriter_rules.opset.resampling.antialias import axis_by_axis, stretched
from vlmpass.rewriter_rules.opset.table import UNCHANGED, CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType
_MODE = "coordinate_transformation_mode"


@adapter("Upsample", 7, 9)
def scales_become_input(op: Tape, node: ir.Node) -> Outputs:
    """Upsample(x, scales=s) -> Upsample(x, s)."""
    given = attribute(node, "scales")
    scales = np.array([] if given is None else given.as_floats(), np.float32)
    return again(op, node, [node.inputs[0], op.const(scales, name="scales")], drop=("scales",))


@adapter("Upsample", 9, 7)
def scales_become_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Upsample(x, s) -> Upsample(x, scales=s)."""
    scales = known(operand(node, 1), "scales").reshape(-1)
    return again(op, node, [node.inputs[0]], scales=[float(scale) for scale in scales])


@adapter("Upsample", 9, 10)
def resize(op: Tape, node: ir.Node) -> Outputs:
    """Upsample(x, s) -> Resize(x, s)."""
    return again(op, node, op_type="Resize")


@expansion("Resize", 10)
def upsample(op: Tape, node: ir.Node) -> Outputs:
    """Resize(x, s) -> Upsample(x, s), by products or Gathers where a scale may be below 1."""
    scales = known_or_none(operand(node, 1))
    if scales is not None and (scales >= 1).all():
        return again(op, node, op_type="Upsample")
    at_opset(op, 13)
    return stretched(op, operand(node, 0), operand(node, 1), text(node, "mode", "nearest"))


@adapter("Resize", 10, 11)
def asymmetric(op: Tape, node: ir.Node) -> Outputs:
    """Resize(x, s) -> Resize(x, empty, s, nearest_mode=floor), asymmetric as opset 10 is."""
    inputs = [node.inputs[0], _nothing(op), node.inputs[1]]
    return again(
        op, node, inputs, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


def _nothing(op: Tape) -> ir.Value:
    return op.const(np.zeros(0, np.float32), name="empty")


@adapter("Resize", 11, 10)
def asymmetric_by_default(op: Tape, node: ir.Node) -> Outputs:
    """Resize(x, , s, nearest_mode=floor) -> Resize(x, s), asymmetric; else products or Gathers."""
    nearest = text(node, "mode", "nearest") == "nearest"
    exact = text(node, _MODE, "half_pixel") == "asymmetric" and (
        not nearest or text(node, "nearest_mode", "round_prefer_floor") == "floor"
    )
    if not exact or text(node, "mode", "nearest") == "cubic" or optional_input(node, 3) is not None:
        at_opset(op, 13)
        return axis_by_axis(op, node)
    return op.Resize(node.inputs[0], node.inputs[2], mode=text(node, "mode", "nearest"))


@adapter("Resize", 11, 13)
def one_of_scales_and_sizes(op: Tape, node: ir.Node) -> Outputs:
    """Resize(x, roi, empty, sizes) -> Resize(x, roi, , sizes)."""
    inputs = list(node.inputs)
    if optional_input(node, 3) is not None:
        inputs[2] = None
    if text(node, _MODE) == "tf_half_pixel_for_nn":
        return _rounded_half_up(op, node, inputs)
    return UNCHANGED if inputs == list(node.inputs) else again(op, node, inputs)


def _rounded_half_up(op: Tape, node: ir.Node, inputs: list[ir.Value | None]) -> Outputs:
    """Record tf_half_pixel_for_nn, which left with opset 13, by its other name.

    floor((x + 0.5) / s) is half_pixel's (x + 0.5) / s - 0.5 rounded half up.
    """
    nearest = text(node, "mode", "nearest") == "nearest"
    if not nearest or text(node, "nearest_mode", "round_prefer_floor") != "floor":
        raise CannotConvert(
            "tf_half_pixel_for_nn left with opset 13, and only rounding down has another name",
            "choose opset 12 or lower",
        )
    mode, rounding = "half_pixel", "round_prefer_ceil"
    return again(op, node, inputs, coordinate_transformation_mode=mode, nearest_mode=rounding)


@adapter("Resize", 13, 11)
def every_input_given(op: Tape, node: ir.Node) -> Outputs:
    """Resize(x, , s) -> Resize(x, empty, s)."""
    inputs = [*node.inputs, None, None][: max(3, len(node.inputs))]
    if inputs[1] is not None and inputs[2] is not None:
        return UNCHANGED
    inputs[1:3] = [value if value is not None else _nothing(op) for value in inputs[1:3]]
    return again(op, node, inputs)


@adapter("Resize", 19, 18)
def symmetric(op: Tape, node: ir.Node) -> Outputs:
    """Resize(x, , s), half_pixel_symmetric -> Resize(x, , s), half_pixel, or products."""
    if text(node, _MODE) != "half_pixel_symmetric":
        return UNCHANGED
    if not _divides(node):
        return axis_by_axis(op, node)
    return again(op, node, coordinate_transformation_mode="half_pixel")


def _divides(node: ir.Node) -> bool:
    """Say whether each scale is known to be the quotient of the sizes."""
    scales, sizes = optional_input(node, 2), dims(operand(node, 0))
    if scales is None:
        return text(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    factors = known_or_none(scales)
    if factors is None or sizes is None:
        return False
    lengths = [sizes[axis] for axis in integers(node, "axes") or range(len(factors))]
    return all(
        factor == 1 or (length is not None and float(length * factor).is_integer())
        for length, factor in zip(lengths, factors, strict=True)
    )


_NEW = ("antialias", "axes", "keep_aspect_ratio_policy")


def _antialiased(node: ir.Node) -> bool:
    return bool(integer(node, "antialias")) and text(node, "mode", "nearest") != "nearest"


@adapter("Resize", 18, 13)
def every_axis(op: Tape, node: ir.Node) -> Outputs:
    """Resize(x, , s, axes=a) -> Resize(x, , s with 1 at the others); products where antialiased."""
    if _antialiased(node) or _keeps_aspect(node):
        return axis_by_axis(op, node)
    axes = integers(node, "axes")
    if axes is None:
        return without(op, node, *_NEW)
    places = [normalized(axis, rank(operand(node, 0))) for axis in axes]
    return again(op, node, _at_every_axis(op, node, places), drop=_NEW)


def _keeps_aspect(node: ir.Node) -> bool:
    policy = text(node, "keep_aspect_ratio_policy", "stretch")
    return policy != "stretch" and optional_input(node, 3) is not None


def _at_every_axis(op: Tape, node: ir.Node, places: list[int]) -> list[ir.Value | None]:
    """Record a Resize's inputs with an element for each axis, given those of some axes."""
    x, count = operand(node, 0), rank(operand(node, 0))
    roi, scales, sizes = (optional_input(node, index) for index in (1, 2, 3))
    if roi is not None and text(node, _MODE) == "tf_crop_and_resize":
        ends = [place + count for place in places]
        whole = op.const(np.repeat([0, 1], count).astype(roi.dtype.numpy() if roi.dtype else "f4"))
        roi = _placed(op, whole, [*places, *ends], roi)
    if scales is not None:
        scales = _placed(op, op.const(np.ones(count, np.float32)), places, scales)
    if sizes is not None:
        sizes = _placed(op, op.Shape(x), places, sizes)
    return [x, roi, scales, sizes]


def _placed(op: Tape, whole: ir.Value, places: list[int], part: ir.Value) -> ir.Value:
    """Record a vector with some of its elements replaced."""
    fixed, base = known_or_none(part), known_or_none(whole)
    if fixed is not None and base is not None:
        values = base.copy()
        values[places] = fixed
        return op.const(values)
    return op.ScatterElements(whole, vector(op, places), part, axis=0)


@adapter("GridSample", 16, 20)
def modes_by_any_rank(op: Tape, node: ir.Node) -> Outputs:
    """GridSample(x, g, mode=bilinear) -> GridSample(x, g, mode=linear)."""
    mode = text(node, "mode")
    new = {"bilinear": "linear", "bicubic": "cubic"}.get(mode)
    return UNCHANGED if new is None else again(op, node, mode=new)
