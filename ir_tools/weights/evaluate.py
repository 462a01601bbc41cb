"""Evaluating an expression piece by piece, with bounded memory whatever its size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlmpass.ir_tools.weights.arrays import AnyArray
from vlmpass.ir_tools.weights.boxes import cut, slices
from vlmpass.ir_tools.weights.leaves import Expression, Stored
from vlmpass.ir_tools.weights.packing import GROUP, is_packed, pack, to_file_order
from vlmpass.ir_tools.weights.tally import Tally

__all__ = ["CHUNK_BYTES", "byte_chunks", "evaluate"]

CHUNK_BYTES = 16 << 20
"""No chunk is larger than this, in bytes."""
_WORK_BYTES = 8 << 20  # of the widest array on the way
_STRIDED_BYTES = 32 << 20  # where runs in the file grow with the box


def _box_elements(expression: Expression) -> int:
    work = _STRIDED_BYTES if expression.strided else _WORK_BYTES
    return max(1, work // expression.width)


def evaluate(expression: Expression, tally: Tally | None = None) -> AnyArray:
    """Evaluate the whole into one array; beside it, memory is bounded."""
    expression = expression.prepared()
    out = np.empty(expression.shape, expression.dtype.numpy())
    for box in cut(expression.shape, _box_elements(expression)):
        out[slices(box)] = expression.read(box, tally)
    return out


def byte_chunks(expression: Expression, tally: Tally | None = None) -> Iterator[memoryview]:
    """Yield the bytes of a file with this tensor, in order, at most `CHUNK_BYTES` at a time."""
    if isinstance(expression, Stored):
        yield from _stored_chunks(expression)
        return
    expression = expression.prepared()
    flat = _flat_arrays(expression, tally)
    if is_packed(expression.dtype):
        flat = _packed(flat, expression)
    for array in flat:
        data = to_file_order(array, expression.dtype).view(np.uint8).data
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]


def _flat_arrays(expression: Expression, tally: Tally | None) -> Iterator[AnyArray]:
    for box in cut(expression.shape, _box_elements(expression)):
        yield expression.read(box, tally).reshape(-1)


def _stored_chunks(stored: Stored) -> Iterator[memoryview]:
    for start in range(0, stored.nbytes, _WORK_BYTES):
        buffer = np.empty(min(_WORK_BYTES, stored.nbytes - start), np.uint8).data
        stored.read_bytes(start, buffer)
        yield buffer


def _packed(arrays: Iterator[AnyArray], expression: Expression) -> Iterator[AnyArray]:
    """Pack elements of a sub-byte type; those that do not fill a group wait for the next array."""
    left = np.empty(0, expression.dtype.numpy())
    for array in arrays:
        both = np.concatenate([left, array]) if left.size else array
        whole = both.size // GROUP * GROUP
        left = both[whole:].copy()
        if whole:
            yield pack(both[:whole], expression.dtype)
    if left.size:
        yield pack(left, expression.dtype)
