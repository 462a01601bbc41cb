"""What can be done with weights; each function returns a new lazy weight at no cost.

Names, doc strings and metadata go from the source to the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.boxes import full, strip
from vlmpass.ir_tools.weights.casts import why_not_cast
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.ir_tools.weights.weight import LazyWeight, Weight

__all__ = [
    "cast",
    "cast_from",
    "columns",
    "concat",
    "derived",
    "reshape",
    "rows",
    "scale",
    "take",
    "transpose",
]


def derived(source: Weight, expression: Expression) -> Weight:
    """Return the weight of an expression over a source, which gives it its name and what it says.

    Args:
        source: The weight that it comes from; it is returned where the expression is its own.
        expression: What its elements are.
    """
    if expression == source.expression:
        return source
    return LazyWeight(
        expression,
        name=source.name,
        doc_string=source.doc_string,
        metadata_props=dict(source.metadata_props),
    )


def cast(weight: Weight, dtype: ir.DataType, *, saturate: bool = True) -> Weight:
    """Cast the elements as ONNX Cast (opset 24 and above) does.

    Floats round to nearest even. Out of range they become infinite, or with `saturate` in the
    four float8 types the largest finite value; the 4 and 6-bit floats always saturate. Integers
    keep their low bits. A cast after one that lost nothing replaces it.

    Args:
        weight: The source.
        dtype: The element type wanted.
        saturate: See above.

    Raises:
        ModelError: ONNX defines no such cast for weights. Values that it leaves undefined (NaN or
            out of range to integers) raise when they are read.
    """
    if why := why_not_cast(weight.dtype, dtype):
        raise ModelError(f"tensor {weight.name} cannot be cast to {dtype}: {why}")
    return derived(weight, expressions.cast(weight.expression, dtype, saturate))


def cast_from(tensor: ir.TensorProtocol) -> ir.DataType:
    """Return the element type a tensor was cast from; its own where it is no cast."""
    expression = tensor.expression if isinstance(tensor, Weight) else None
    return expression.source.dtype if isinstance(expression, expressions.Cast) else tensor.dtype


def take(weight: Weight, axis: int, start: int, stop: int) -> Weight:
    """Return the slice [start, stop) along an axis.

    Args:
        weight: The weight.
        axis: Counted from the back if negative.
        start: First index.
        stop: The index after the last.

    Raises:
        ValueError: There is no such axis or range.
    """
    shape = weight.expression.shape
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} of a tensor with {len(shape)} axes")
    axis %= len(shape)
    if not 0 <= start <= stop <= shape[axis]:
        raise ValueError(f"[{start}, {stop}) of an axis of extent {shape[axis]}")
    box = strip(full(shape), axis, start, stop)
    return derived(weight, expressions.taken(weight.expression, box))


def rows(weight: Weight, start: int, stop: int) -> Weight:
    """Return the slice [start, stop) along the first axis: a range of the same file.

    Args:
        weight: Of one axis or more.
        start: First index.
        stop: The index after the last.
    """
    return take(weight, 0, start, stop)


def columns(weight: Weight, start: int, stop: int) -> Weight:
    """Return the slice [start, stop) along the last axis.

    Args:
        weight: Of one axis or more.
        start: First index.
        stop: The index after the last.
    """
    return take(weight, -1, start, stop)


def transpose(weight: Weight, perm: Sequence[int]) -> Weight:
    """Return the weight with axis i the source's axis perm[i], as ONNX Transpose does.

    Raises:
        ValueError: perm is no permutation of the axes.
    """
    if sorted(perm) != list(range(len(weight.expression.shape))):
        raise ValueError(f"{list(perm)} does not permute {len(weight.expression.shape)} axes")
    return derived(weight, expressions.transposed(weight.expression, tuple(perm)))


def reshape(weight: Weight, shape: Sequence[int]) -> Weight:
    """Return the same elements in the same row-major order under another shape, all extents given.

    A range of a file stays one.

    Raises:
        ValueError: The shape holds another number of elements.
    """
    if min(shape, default=0) < 0 or math.prod(shape) != weight.size:
        raise ValueError(f"{weight.size} elements do not fill {list(shape)}")
    return derived(weight, expressions.reshaped(weight.expression, tuple(shape)))


def concat(weights: Sequence[Weight], axis: int) -> Weight:
    """Join weights of one type along an axis; slices that are neighbours in a file become one.

    Raises:
        ValueError: There are none, or they differ in type or in an extent beside the axis.
    """
    if not weights:
        raise ValueError("nothing to concatenate")
    first = weights[0].expression
    if not -len(first.shape) <= axis < len(first.shape):
        raise ValueError(f"axis {axis} of tensors with {len(first.shape)} axes")
    axis %= len(first.shape)
    for weight in weights:
        other = weight.expression
        same = strip(full(other.shape), axis, 0, 0) == strip(full(first.shape), axis, 0, 0)
        if other.dtype != first.dtype or len(other.shape) != len(first.shape) or not same:
            raise ValueError(
                f"{other.dtype}{list(other.shape)} does not join "
                f"{first.dtype}{list(first.shape)} along axis {axis}"
            )
    return derived(weights[0], expressions.joined([w.expression for w in weights], axis))


def scale(weight: Weight, factor: npt.ArrayLike) -> Weight:
    """Multiply by a factor that broadcasts to the weight's shape.

    The product is computed in float32 (float64 for DOUBLE) and rounded once.

    Raises:
        ModelError: The weight is not of a floating-point type.
        ValueError: The factor does not broadcast to the shape.
    """
    if not weight.dtype.is_floating_point() or weight.dtype == ir.DataType.FLOAT8E8M0:
        raise ModelError(f"tensor {weight.name} is {weight.dtype} and cannot be scaled")
    array = np.asarray(factor)
    shape = weight.expression.shape
    if array.ndim > len(shape) or np.broadcast_shapes(array.shape, shape) != shape:
        raise ValueError(f"a factor {list(array.shape)} does not broadcast to {list(shape)}")
    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    return derived(weight, expressions.scaled(weight.expression, array))
