"""What is fed to models and what comes back: cast, rounded, looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["cast_all", "is_finite", "largest_of", "rounded"]

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _is_float(array: Array) -> bool:
    return array.dtype.kind in "fV"


def is_finite(outputs: Feed) -> bool:
    """Say whether every floating-point element is finite."""
    return all(bool(np.isfinite(array).all()) for array in _floats(outputs))


def largest_of(outputs: Feed) -> float:
    """Return the largest magnitude of the floating-point elements; 0.0 without any."""
    return max((float(np.abs(array).max(initial=0)) for array in _floats(outputs)), default=0.0)


def _floats(outputs: Feed) -> Iterator[Array]:
    """Yield the floating-point arrays, those of sequences too, in float32 at most."""
    for value in outputs.values():
        for array in value if isinstance(value, list) else [value]:
            if array is not None and _is_float(array):
                yield array.astype(np.float32, copy=False)


def cast_all(
    feed: Feed, types: Mapping[str | None, ir.DataType | None]
) -> dict[str, Array | list[Array] | None]:
    """Return values in given element types, by name; as they are where none is given."""
    return {name: _cast(value, types.get(name)) for name, value in feed.items()}


def _cast(
    value: Array | Sequence[Array] | None, dtype: ir.DataType | None
) -> Array | list[Array] | None:
    if value is None or dtype is None or dtype is ir.DataType.STRING:
        return value if value is None or isinstance(value, np.ndarray) else list(value)
    if isinstance(value, np.ndarray):
        return value.astype(dtype.numpy(), copy=False)
    return [item.astype(dtype.numpy(), copy=False) for item in value]


def rounded(
    value: Array | Sequence[Array] | None, dtype: ir.DataType | None
) -> Array | list[Array] | None:
    """Return floating-point values rounded to a half precision, in the type that they have."""
    if isinstance(value, np.ndarray):
        narrow = dtype is not None and dtype in _HALVES and _is_float(value)
        return value.astype(dtype.numpy()).astype(value.dtype) if dtype and narrow else value
    if value is None:
        return None
    items = (rounded(item, dtype) for item in value)
    return [item for item in items if isinstance(item, np.ndarray)]
