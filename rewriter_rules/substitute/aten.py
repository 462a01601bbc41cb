"""Antialiased PyTorch resizes that an exporter left as nodes of a foreign domain.

``torch.onnx`` writes ``org.pytorch.aten::ATen(operator="_upsample_bicubic2d_aa")`` when it falls
back, and users register ``aten::_upsample_bicubic2d_aa`` as a custom operator; no runtime has
either. Inputs are those of PyTorch: image, output size, align_corners, then scales as one vector or
as two scalars, all but the first optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.rewrite import Replacement, RuleSet, Tape, refuse, rule
from vlmpass.ir_tools.rewrite.pattern import Op, as_pattern
from vlmpass.rewriter_rules.opset.build import cast
from vlmpass.rewriter_rules.opset.queries import constant, dims, dtype, known_or_none
from vlmpass.rewriter_rules.opset.resampling.antialias import Axis, separable
from vlmpass.rewriter_rules.opset.resampling.interpolation import Filter
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.substitute.aten_arguments import Arguments

__all__ = [
    "ATEN_RESIZES",
    "DOMAINS",
    "aten_antialiased_resize",
    "kernel_of",
    "scales_of",
    "whole_sizes",
]

unlisted = rule
"""Makes a rule that is the pass's own: nobody asks for it by name, and no runtime compares it."""

_KERNELS: dict[str, Literal["linear", "cubic"]] = {
    "_upsample_bicubic2d_aa": "cubic",
    "_upsample_bilinear2d_aa": "linear",
}
DOMAINS = ("org.pytorch.aten", "aten")
"""Where exporters leave what they do not know."""
_SPELLINGS = tuple((domain, op) for domain in DOMAINS for op in ("ATen", *_KERNELS))


def kernel_of(node: ir.Node) -> Literal["linear", "cubic"] | None:
    """Return the kernel of an antialiased PyTorch resize; None for any other node."""
    if node.domain not in DOMAINS:
        return None
    given = node.attributes.get("operator") if node.op_type == "ATen" else None
    if given is not None and given.is_ref():
        return None
    return _KERNELS.get(node.op_type if given is None else given.as_string())


def scales_of(op: Tape, given: Sequence[ir.Value]) -> ir.Value | None:
    """Return the scales as one float32 vector; None if PyTorch was given sizes only."""
    if not given:
        return None
    fixed = [known_or_none(value) for value in given]
    known = [array.reshape(-1) for array in fixed if array is not None]
    if len(known) == len(given):
        return op.const(np.concatenate(known).astype(np.float32))
    parts = given if len(given) == 1 else [op.Reshape(each, op.const([1])) for each in given]
    floats = [cast(op, each, ir.DataType.FLOAT) for each in parts]
    return floats[0] if len(floats) == 1 else op.Concat(*floats, axis=0)


def whole_sizes(
    op: Tape, x: ir.Value, size: ir.Value | None, scales: ir.Value | None
) -> tuple[ir.Value | None, ir.Value | None]:
    """Return the scales of all axes, or if there are none the sizes, of which two stay.

    Args:
        op: The tape.
        x: The image.
        size: Of the other axes.
        scales: Of the other axes.
    """
    if scales is not None:
        return op.Concat(op.const(np.ones(2, np.float32)), scales, axis=0), None
    if size is None:
        return None, None
    kept = op.Slice(op.Shape(x), op.const([0]), op.const([2]), op.const([0]))
    return None, op.Concat(kept, cast(op, size, ir.DataType.INT64), axis=0)


def _resize(
    op: Tape, x: ir.Value, size: ir.Value | None, scales: ir.Value | None, kernel: str
) -> ir.Value:
    """Record the Resize of opset 18 that equals PyTorch's."""
    factors, whole = whole_sizes(op, x, size, scales)
    return op.Resize(
        x,
        None,
        factors,
        whole,
        mode=kernel,
        antialias=1,
        exclude_outside=1,
        cubic_coeff_a=-0.5,
        coordinate_transformation_mode="half_pixel",
    )


def _length(
    op: Tape, x: ir.Value, index: int, size: ir.Value | None, scale: float | ir.Value | None
) -> int | ir.Value:
    """Return the new height (index 0) or width (index 1), known or recorded as int64 scalar."""
    known, at = known_or_none(size), op.const(index)
    if known is not None:
        return int(known.reshape(-1)[index])
    if size is not None:
        return cast(op, op.Gather(size, at, axis=0), ir.DataType.INT64)
    assert scale is not None
    sizes = dims(x)
    before = None if sizes is None else sizes[index + 2]
    if before is not None and isinstance(scale, float):
        return int(np.float32(before) * np.float32(scale))
    factor = op.const(scale) if isinstance(scale, float) else scale
    length = op.Gather(op.Shape(x), op.const(index + 2), axis=0)
    wide = op.Mul(cast(op, length, ir.DataType.FLOAT), factor)
    return op.Cast(op.Floor(wide), to=ir.DataType.INT64)


def _axes(
    op: Tape, x: ir.Value, size: ir.Value | None, scales: ir.Value | None, corners: bool
) -> list[Axis]:
    axes, fixed = [], known_or_none(scales)
    for index in (0, 1):
        scale: float | ir.Value | None = None
        if fixed is not None:
            scale = float(fixed[index])
        elif scales is not None:
            scale = op.Gather(scales, op.const(index), axis=0)
        length = _length(op, x, index, size, scale)
        axes.append(Axis(index + 2, length, None if corners else scale))
    return axes


def _is_constant(x: ir.Value, size: ir.Value | None, scales: ir.Value | None) -> bool:
    """Say whether the result is the same whatever the model is given."""
    fixed = (value is None or known_or_none(value) is not None for value in (size, scales))
    return constant(x) is not None and all(fixed)


def _resized(
    op: Tape, x: ir.Value, given: Arguments, kernel: Literal["linear", "cubic"]
) -> ir.Value:
    size, corners = given.value("output_size"), bool(given.number("align_corners", 0))
    scales = scales_of(op, given.scales(2))
    if "output_size" in given.node.attributes or (size is None and scales is None):
        raise CannotConvert("it has neither an output size nor scales as inputs")
    if dtype(x).is_integer():
        raise CannotConvert("PyTorch rounds the weights of an integer image in its own way")
    one = size is None or scales is None
    if op.opsets[""] >= 18 and one and not corners and not _is_constant(x, size, scales):
        return _resize(op, x, size, scales, kernel)
    filter_ = Filter(kernel, -0.5, True, "half_pixel", corner_steps=corners)
    if x.shape is None:
        x.shape = ir.Shape([None, None, None, None])
    return separable(op, x, _axes(op, x, size, scales, corners), filter_)


@unlisted(Op(_SPELLINGS, (as_pattern("x"), as_pattern("rest*")), node="node"))
def aten_antialiased_resize(
    op: Tape, x: ir.Value, rest: tuple[ir.Value | None, ...], node: ir.Node
) -> Replacement:
    """aten::_upsample_*2d_aa(x, size) -> Resize(x, antialias=1), or MatMuls, or a constant."""
    kernel = kernel_of(node)
    if kernel is None:
        return refuse("{} is another operator", node)
    opset = op.opsets.get("", 1)
    if opset < 13:
        return refuse("opset {} is below 13; convert to 13 or later first", opset)
    try:
        return _resized(op, x, Arguments(node, ("self", "output_size", "align_corners")), kernel)
    except CannotConvert as error:
        return refuse(str(error))


ATEN_RESIZES = RuleSet((aten_antialiased_resize,))
