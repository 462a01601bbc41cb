"""Interpolation along one axis as a matrix, computed here or built in the graph.

Row i of the matrix holds the weights of all inputs j for output i: a kernel of the distance between
j and the place of i among the inputs, widened where the axis shrinks if it antialiases. Distances
are kept as a quotient of integers wherever the scale is the quotient of two sizes, so that float32
is enough.
Source: ONNX Resize-18 with antialias=1; PyTorch's ``_upsample_*2d_aa`` and PIL's resize are the
case exclude_outside=1, half_pixel and, for cubic, cubic_coeff_a=-0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape

__all__ = ["Filter", "matrix", "matrix_in_graph"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Filter:
    """What is common to all axes of a resize.

    Attributes:
        kernel: ``linear`` reaches 1 and ``cubic`` 2 input steps, more where the axis shrinks.
        coefficient: The cubic kernel's a.
        exclude_outside: Whether places beyond the border have no weight; else the border's value.
        coordinates: Coordinate transformation mode of ONNX Resize.
        corner_steps: Whether the scale is that of the steps between corners, (m - 1) / (n - 1), and
            places are half_pixel's: what PyTorch makes of align_corners.
        widens: Whether the kernel is as wide as an output step where the axis shrinks.
    """

    kernel: Literal["linear", "cubic"]
    coefficient: float = -0.75
    exclude_outside: bool = False
    coordinates: str = "half_pixel"
    corner_steps: bool = False
    widens: bool = True

    @property
    def reach(self) -> int:
        """How far the kernel reaches in input steps."""
        return 1 if self.kernel == "linear" else 2

    def weigh(self, distance: Floats) -> Floats:
        """Return the kernel at distances of zero or more."""
        t, a = distance, self.coefficient
        if self.kernel == "linear":
            return np.maximum(1 - t, 0)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return np.where(t <= 1, near, np.where(t < 2, far, 0))


def _places(filter_: Filter, n: int, m: int, scale: float | None) -> Floats:
    """Return the place among n inputs of each of m outputs."""
    i = np.arange(m, dtype=np.float64)
    if filter_.corner_steps:
        return (i + 0.5) * ((n - 1) / (m - 1) if m > 1 else 0.0) - 0.5
    if filter_.coordinates == "align_corners":
        return i * ((n - 1) / (m - 1)) if m > 1 else i * 0
    step = n / m if scale is None else 1 / scale
    if filter_.coordinates == "asymmetric":
        return i * step
    if filter_.coordinates == "pytorch_half_pixel" and m == 1:
        return i * 0
    shift = 0.0
    if filter_.coordinates == "half_pixel_symmetric" and scale is not None:
        shift = n / 2 * (1 - m / (scale * n))
    return shift + (i + 0.5) * step - 0.5


def matrix(filter_: Filter, n: int, m: int, scale: float | None = None) -> npt.NDArray[np.float32]:
    """Return the matrix of an axis of known sizes.

    Args:
        filter_: The kind of interpolation.
        n: Size of the axis.
        m: Its new size.
        scale: Scale if it is not m / n.

    Returns:
        float32 [m, n], rounded once from float64.
    """
    ratio = m / n if scale is None else scale
    if filter_.corner_steps:
        ratio = (m - 1) / (n - 1) if m > 1 and n > 1 else 1.0
    narrow = min(ratio, 1.0) if filter_.widens else 1.0
    beyond = 0 if filter_.exclude_outside else int(np.ceil(filter_.reach / narrow)) + 1
    j = np.arange(-beyond, n + beyond, dtype=np.float64)
    places = _places(filter_, n, m, scale)
    weights = filter_.weigh(np.abs(j[None, :] - places[:, None]) * narrow)
    inside = weights[:, beyond : beyond + n].copy()
    inside[:, 0] += weights[:, :beyond].sum(axis=1)
    inside[:, -1] += weights[:, beyond + n :].sum(axis=1)
    rows: Floats = inside / inside.sum(axis=1, keepdims=True)
    return rows.astype(np.float32)


@dataclass(frozen=True)
class _Sizes:
    """Sizes of an axis in the graph, int64 scalars, and the scale if it is not m / n, float32."""

    n: ir.Value
    m: ir.Value
    scale: ir.Value | None


def _float(op: Tape, value: ir.Value) -> ir.Value:
    return op.Cast(value, to=ir.DataType.FLOAT)


def _at_least_one(op: Tape, value: ir.Value) -> ir.Value:
    return op.Max(value, op.const(1))


def _quotient(
    op: Tape, filter_: Filter, sizes: _Sizes, i: ir.Value, j: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Record the distance of input j from output i as numerator and denominator, int64."""
    n, m, one, two = sizes.n, sizes.m, op.const(1), op.const(2)
    if filter_.coordinates == "align_corners":
        steps = _at_least_one(op, op.Sub(m, one))
        return op.Sub(op.Mul(j, steps), op.Mul(i, op.Sub(n, one))), steps
    if filter_.coordinates == "asymmetric":
        return op.Sub(op.Mul(j, m), op.Mul(i, n)), m
    if filter_.corner_steps:
        alone = op.Equal(m, one)
        n = op.Where(alone, op.const(0), op.Sub(n, one))
        m = op.Where(alone, one, op.Sub(m, one))
    ours = op.Mul(op.Add(op.Mul(j, two), one), m)
    theirs = op.Mul(op.Add(op.Mul(i, two), one), n)
    if filter_.coordinates == "pytorch_half_pixel":
        theirs = op.Where(op.Equal(m, one), m, theirs)
    return op.Sub(ours, theirs), op.Mul(m, two)


def _distance_by_sizes(
    op: Tape, filter_: Filter, sizes: _Sizes, i: ir.Value, j: ir.Value
) -> ir.Value:
    """Record |place of j - place of i| in kernel steps, the scale being a quotient of sizes."""
    above, below = _quotient(op, filter_, sizes, i, j)
    if not filter_.widens:
        return op.Div(_float(op, op.Abs(above)), _float(op, below))
    shorter, n = op.Min(sizes.n, sizes.m), sizes.n
    if filter_.corner_steps:
        one = op.const(1)
        shorter = _at_least_one(op, op.Sub(shorter, one))
        n = op.Where(op.Equal(sizes.m, one), one, _at_least_one(op, op.Sub(n, one)))
    narrow = op.Div(_float(op, shorter), _float(op, op.Mul(below, n)))
    return op.Mul(_float(op, op.Abs(above)), narrow)


def _distance_by_scale(
    op: Tape, filter_: Filter, sizes: _Sizes, i: ir.Value, j: ir.Value
) -> ir.Value:
    """Record |j - place of i| in kernel steps, the scale being given."""
    scale = sizes.scale
    assert scale is not None
    if filter_.coordinates == "align_corners":
        above, below = _quotient(op, filter_, sizes, i, j)
        away = op.Div(_float(op, above), _float(op, below))
    elif filter_.coordinates == "asymmetric":
        away = op.Sub(_float(op, j), op.Div(_float(op, i), scale))
    else:
        half = op.const(0.5)
        place = op.Sub(op.Div(op.Add(_float(op, i), half), scale), half)
        if filter_.coordinates == "pytorch_half_pixel":
            alone = op.Equal(sizes.m, op.const(1))
            place = op.Where(alone, op.const(0.0), place)
        if filter_.coordinates == "half_pixel_symmetric":
            width = _float(op, sizes.n)
            over = op.Sub(op.Mul(scale, width), _float(op, sizes.m))
            place = op.Add(place, op.Div(op.Mul(over, half), scale))
        away = op.Sub(_float(op, j), place)
    away = op.Abs(away)
    return op.Mul(away, op.Min(scale, op.const(1.0))) if filter_.widens else away


def _weigh(op: Tape, filter_: Filter, t: ir.Value) -> ir.Value:
    """Record the kernel at distances."""
    one, zero, a = op.const(1.0), op.const(0.0), filter_.coefficient
    if filter_.kernel == "linear":
        return op.Max(op.Sub(one, t), zero)
    near = op.Sub(op.Mul(t, op.const(a + 2)), op.const(a + 3))
    near = op.Add(op.Mul(op.Mul(near, t), t), one)
    far = op.Sub(op.Mul(t, op.const(a)), op.const(5 * a))
    far = op.Add(op.Mul(far, t), op.const(8 * a))
    far = op.Sub(op.Mul(far, t), op.const(4 * a))
    outer = op.Where(op.Less(t, op.const(2.0)), far, zero)
    return op.Where(op.Less(t, one), near, outer)


def _beyond(op: Tape, filter_: Filter, sizes: _Sizes) -> ir.Value:
    """Record how many places beyond each border the kernel can reach, an int64 scalar."""
    if not filter_.widens:
        return op.const(filter_.reach + 1)
    reach = op.const(filter_.reach)
    if sizes.scale is None and not filter_.corner_steps:
        return op.Mul(reach, op.Add(op.Div(sizes.n, sizes.m), op.const(2)))
    scale = sizes.scale if sizes.scale is not None else op.const(1.0)
    steps = op.Div(_float(op, reach), op.Min(scale, op.const(1.0)))
    return op.Add(op.Cast(op.Ceil(steps), to=ir.DataType.INT64), op.const(1))


def _fold_borders(
    op: Tape, filter_: Filter, sizes: _Sizes, weights: ir.Value, j: ir.Value
) -> ir.Value:
    """Record the weights with those beyond a border added to the border's."""
    zero, none = op.const(0), op.const(0.0)
    axis = op.const([1])
    low, last = op.Less(j, zero), op.Sub(sizes.n, op.const(1))
    high = op.Greater(j, last)
    left = op.ReduceSum(op.Where(low, weights, none), axis, keepdims=1)
    right = op.ReduceSum(op.Where(high, weights, none), axis, keepdims=1)
    weights = op.Add(weights, op.Where(op.Equal(j, zero), left, none))
    weights = op.Add(weights, op.Where(op.Equal(j, last), right, none))
    start = op.Unsqueeze(_beyond(op, filter_, sizes), op.const([0]))
    stop = op.Add(start, op.Unsqueeze(sizes.n, op.const([0])))
    return op.Slice(weights, start, stop, axis)


def matrix_in_graph(
    op: Tape, filter_: Filter, n: ir.Value, m: ir.Value, scale: ir.Value | None = None
) -> ir.Value:
    """Record the matrix of an axis whose sizes are known at run time only.

    Args:
        op: The tape; its nodes are valid from opset 13 on.
        filter_: The kind of interpolation.
        n: Size of the axis, an int64 scalar.
        m: Its new size, an int64 scalar.
        scale: Scale if it is not m / n, a float32 scalar.

    Returns:
        float32 [m, n].
    """
    sizes = _Sizes(n, m, scale)
    zero, one = op.const(0), op.const(1)
    beyond = zero if filter_.exclude_outside else _beyond(op, filter_, sizes)
    i = op.Unsqueeze(op.Range(zero, m, one), op.const([1]))
    j = op.Unsqueeze(op.Range(op.Neg(beyond), op.Add(n, beyond), one), op.const([0]))
    measure = _distance_by_sizes if scale is None else _distance_by_scale
    weights = _weigh(op, filter_, measure(op, filter_, sizes, i, j))
    if not filter_.exclude_outside:
        weights = _fold_borders(op, filter_, sizes, weights, j)
    return op.Div(weights, op.ReduceSum(weights, op.const([1]), keepdims=1))
