"""Names for the numpy arrays that the weights are evaluated in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnyArray", "BoolArray", "ByteArray", "contiguous"]

# The element type is known at run time only, and half of them are not numpy's own.
AnyArray = NDArray[Any]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]


def contiguous(array: AnyArray) -> AnyArray:
    """Return the array itself if it lies in row-major order, else a copy that does."""
    return array if array.flags.c_contiguous else array.copy()
