"""Comparing the constants and attributes of a graph with those a pattern expects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.operators import broadcasting
from vlmpass.ir_tools.rewrite.pattern import Literal

__all__ = ["attribute_is", "is_number", "widens"]

_TOLERANCE: Final = 2e-6


@cache
def _rounding(dtype: np.dtype) -> float:
    """Return how far a constant of this type may lie from a number it cannot hold."""
    if dtype.kind in "fV":
        eps = ml_dtypes.finfo(dtype).eps  # type: ignore[no-untyped-call]
        # Half a unit in the last place; a little more for one rounded to float32 before.
        return max(0.51 * float(eps), _TOLERANCE)
    return 0.0


def is_number(array: np.ndarray, expected: float) -> bool:
    """Return whether the first element of a constant is a number.

    A number that float32 and the element type hold, such as 1 or 0.5, must be met exactly; another
    one, such as 0.7071067811865476, within one rounding of that type or 2e-6, whichever is more.
    """
    found = float(array.flat[0])
    if found == expected or array.dtype.kind not in "fV":
        return found == expected
    exact = np.asarray(expected, np.float32)
    with np.errstate(over="ignore"):
        if float(exact) == expected and float(exact.astype(array.dtype)) == expected:
            return False
    return abs(found - expected) <= _rounding(array.dtype) * abs(expected)


def widens(constant: np.ndarray, node: ir.Node, value: ir.Value) -> bool:
    """Return whether a constant operand may give a node's result more axes or elements.

    A number spelled ``[1.0]`` or ``[0.5, 0.5]`` stands for that number only where another operand
    already has its axes and sizes.

    Args:
        constant: The operand.
        node: The node that takes it.
        value: The value that holds it, an input of the node.
    """
    if constant.ndim == 0 or node.op_type not in broadcasting():
        return constant.size > 1
    for other in node.inputs:
        if other is None or other is value or other.shape is None:
            continue
        dims = other.shape.dims[other.shape.rank() - constant.ndim :]
        if other.shape.rank() >= constant.ndim and all(
            size in (1, dim) for size, dim in zip(constant.shape, dims, strict=True)
        ):
            return False
    return True


def _numbers(given: object) -> tuple[float, ...] | None:
    if isinstance(given, (int, float)):
        return (given,)
    if isinstance(given, Sequence) and all(isinstance(part, (int, float)) for part in given):
        return tuple(given)
    return None


def attribute_is(found: object, expected: object, *, rank: int | None = None) -> bool:
    """Return whether an attribute has the expected value.

    Args:
        found: Its Python value; one number and a list of one number are the same.
        expected: A number, numbers, an element type or a `Literal` text.
        rank: Where it is an axis: the rank that negative axes count from; None if unknown.
    """
    if isinstance(expected, Literal):
        return bool(found == expected.text)
    if isinstance(expected, str):
        return bool(found == expected)
    left, right = _numbers(found), _numbers(expected)
    if left is None or right is None or len(left) != len(right):
        return False
    if rank is not None:
        left = tuple(axis % rank if axis < 0 else axis for axis in left)
        right = tuple(axis % rank if axis < 0 else axis for axis in right)
    return all(
        one == two or (isinstance(two, float) and abs(one - two) <= 1e-6 * abs(two))
        for one, two in zip(left, right, strict=True)
    )
