"""Names for the numpy arrays that the weights are evaluated in, and how they are copied."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnyArray", "BoolArray", "ByteArray", "contiguous", "copy_tiled"]

_TILE = 256

# The element type is known at run time only, and half of them are not numpy's own.
AnyArray = NDArray[Any]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]


def contiguous(array: AnyArray) -> AnyArray:
    """Return the array itself if it lies in row-major order, else a copy that does."""
    return array if array.flags.c_contiguous else array.copy()


def copy_tiled(source: AnyArray, out: AnyArray, axis: int) -> None:
    """Copy between arrays of one shape that are dense along different axes.

    A plain copy misses the cache at every element, the more so the rounder the extents are. This
    one goes by squares, over a buffer whose rows are no power of two apart.

    Args:
        source: What is copied; dense along its last axis.
        out: Where it goes.
        axis: Along which `out` is dense.
    """
    if axis == source.ndim - 1 or min(source.shape[-1], source.shape[axis]) < _TILE // 8:
        out[...] = source
        return
    source, out = np.moveaxis(source, axis, -2), np.moveaxis(out, axis, -2)
    height, width = source.shape[-2:]
    buffer = np.empty((_TILE, _TILE + 16), source.dtype)
    for index in np.ndindex(*source.shape[:-2]):
        rows, target = source[index], out[index]
        for top in range(0, height, _TILE):
            for left in range(0, width, _TILE):
                part = rows[top : top + _TILE, left : left + _TILE]
                square = buffer[: part.shape[0], : part.shape[1]]
                square[...] = part
                target[top : top + _TILE, left : left + _TILE] = square
