"""PyTorch's nearest neighbours, which multiply by in / out where Resize divides by out / in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import arange, cast, scalar_at
from vlmpass.rewriter_rules.opset.queries import dims, dtype, known_or_none
from vlmpass.rewriter_rules.opset.table import CannotConvert

__all__ = ["nearest"]

_D = ir.DataType


def _places(n: int, m: int, scale: float | None, exact: bool) -> np.ndarray:
    """Return which elements PyTorch takes; it rounds middles once after a product and a sum."""
    step = np.float32(n) / np.float32(m) if scale is None else np.float32(1.0 / scale)
    if exact:
        middles = (np.arange(m) + 0.5) * np.float64(step) - 0.5
        line = middles.astype(np.float32) + np.float32(0.5)
    else:
        line = np.arange(m).astype(np.float32) * step
    places: np.ndarray = np.minimum(np.floor(line), n - 1).astype(np.int64)
    return places


def _agreed(n: int, m: int, scale: float | None, exact: bool) -> np.ndarray:
    """Return which elements all kernels of PyTorch take, those with shortcuts, too."""
    found = _places(n, m, scale, exact)
    if m in (n, 2 * n) and not np.array_equal(found, np.arange(m) * n // m):
        raise CannotConvert("PyTorch's own kernels differ in which elements they take")
    return found


def _at_run_time(
    op: Tape, x: ir.Value, axis: int, size: ir.Value | None, scale: float | None, exact: bool
) -> ir.Value:
    """Record which elements float32 finds, as PyTorch does, for sizes that are not known."""
    if scale is not None and (size is not None or scale % 1):
        raise CannotConvert("which elements are nearest depends on sizes known at run time only")
    length = scalar_at(op, op.Shape(x), axis)
    if scale is not None:
        longer, step = op.Mul(length, op.const(int(scale))), op.const(np.float32(1.0 / scale))
    else:
        assert size is not None
        longer = cast(op, scalar_at(op, size, axis - 2), _D.INT64)
        step = op.Div(op.Cast(length, to=_D.FLOAT), op.Cast(longer, to=_D.FLOAT))
    line = arange(op, longer)
    if exact:
        half = op.const(0.5, _D.DOUBLE)
        wide = op.Add(op.Cast(line, to=_D.DOUBLE), half)
        middles = op.Sub(op.Mul(wide, op.Cast(step, to=_D.DOUBLE)), half)
        places = op.Add(op.Cast(middles, to=_D.FLOAT), op.const(0.5, _D.FLOAT))
    else:
        places = op.Mul(op.Cast(line, to=_D.FLOAT), step)
    return op.Min(op.Cast(op.Floor(places), to=_D.INT64), op.Sub(length, op.const(1)))


def _scales(given: Sequence[ir.Value], count: int) -> list[float | None]:
    """Return the scales in doubles, as PyTorch inverts them."""
    if not given:
        return [None] * count
    fixed = [known_or_none(value) for value in given]
    known = [array.reshape(-1).astype(np.float64) for array in fixed if array is not None]
    if len(known) < len(given) or min(map(np.min, known)) <= 0:
        raise CannotConvert("its scales are not known, or not above zero")
    return [float(each) for each in np.concatenate(known)]


def _scaled(n: int, scale: float) -> int:
    """Return a size times a scale, which an exporter may have rounded to float32."""
    m = int(n * scale)
    if m != int(np.float32(n) * np.float32(scale)):
        raise CannotConvert("its new size depends on how its scale was rounded")
    return m


def nearest(
    op: Tape,
    x: ir.Value,
    size: ir.Value | None,
    scales: Sequence[ir.Value],
    count: int,
    exact: bool,
) -> ir.Value:
    """Record PyTorch's upsample_nearest, one Gather for each axis.

    Args:
        op: The tape.
        x: The image.
        size: Of the axes after the first two; None if scales say it.
        scales: Of these axes; none if their sizes say it.
        count: How many axes these are.
        exact: Whether it is the kind of nearest that takes the middles of pixels.

    Raises:
        CannotConvert: Which elements PyTorch takes is not told by what is known.
    """
    if dtype(x) == _D.DOUBLE:
        raise CannotConvert("PyTorch counts the elements of a double image in doubles, and fused")
    known, sizes = known_or_none(size), dims(x)
    for index, scale in enumerate(_scales(scales, count)):
        n, m = None if sizes is None else sizes[index + 2], None
        if known is not None:
            m = int(known.reshape(-1)[index])
        elif size is None and n is not None and scale is not None:
            m = _scaled(n, scale)
        if n is not None and m is not None:
            places = op.const(_agreed(n, m, scale, exact))
        else:
            places = _at_run_time(op, x, index + 2, size, scale, exact)
        x = op.Gather(x, places, axis=index + 2)
    return x
