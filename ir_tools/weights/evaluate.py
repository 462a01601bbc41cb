"""Evaluating an expression piece by piece, with bounded memory whatever its size."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vlmpass.ir_tools.weights.arrays import AnyArray
from vlmpass.ir_tools.weights.boxes import cut, extent, grid, slices, tile_shape
from vlmpass.ir_tools.weights.expressions import Transposed
from vlmpass.ir_tools.weights.leaves import Expression, Stored
from vlmpass.ir_tools.weights.packing import GROUP, is_packed, pack, to_file_order
from vlmpass.ir_tools.weights.tally import Tally

__all__ = ["CHUNK_BYTES", "byte_chunks", "byte_pieces", "evaluate"]

CHUNK_BYTES = 16 << 20
"""No chunk is larger than this, in bytes."""
_WORK_BYTES = 8 << 20  # of the widest array on the way
_STRIDED_BYTES = 16 << 20  # where runs in the file grow with the box


def _box_elements(expression: Expression) -> int:
    work = _STRIDED_BYTES if expression.strided else _WORK_BYTES
    return max(1, work // expression.width)


def evaluate(expression: Expression, tally: Tally | None = None) -> AnyArray:
    """Evaluate the whole into one array; beside it, memory is bounded."""
    expression = expression.prepared()
    out = np.empty(expression.shape, expression.dtype.numpy())
    if isinstance(expression, Transposed):
        boxes = grid(expression.shape, _tile(expression))
    else:
        boxes = cut(expression.shape, _box_elements(expression))
    for box in boxes:
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


def byte_pieces(
    expression: Expression, tally: Tally | None = None
) -> Iterator[tuple[int, memoryview]]:
    """Yield pieces of the bytes, each with its offset, in whatever order reads the source best.

    Every byte is yielded once, at most `CHUNK_BYTES` at a time.
    """
    if isinstance(expression, Transposed) and not is_packed(expression.dtype):
        yield from _tiles(expression, tally)
        return
    offset = 0
    for chunk in byte_chunks(expression, tally):
        yield offset, chunk
        offset += len(chunk)


def _tile(expression: Transposed) -> tuple[int, ...]:
    """Choose boxes with long runs here and in the source."""
    return tile_shape(expression.shape, expression.source_axes, _box_elements(expression))


def _tiles(expression: Transposed, tally: Tally | None) -> Iterator[tuple[int, memoryview]]:
    """Yield the runs of one tile after the other."""
    shape = expression.shape
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    tile = _tile(expression)
    whole = len(shape)  # axes from here on are whole in every tile
    while whole > 0 and tile[whole - 1] == shape[whole - 1]:
        whole -= 1
    prepared = expression.prepared()
    for box in grid(shape, tile):
        array = prepared.read(box, tally)
        runs = to_file_order(array, expression.dtype).reshape(-1).view(np.uint8).data
        outer = extent(box)[: max(0, whole - 1)]
        length = len(runs) // max(1, math.prod(outer))
        origin = sum(start * stride for (start, _), stride in zip(box, strides, strict=True))
        for number, index in enumerate(np.ndindex(*outer)):
            first = origin + sum(i * strides[axis] for axis, i in enumerate(index))
            yield first * array.itemsize, runs[number * length : (number + 1) * length]


def _flat_arrays(expression: Expression, tally: Tally | None) -> Iterator[AnyArray]:
    for box in cut(expression.shape, _box_elements(expression), expression.rows):
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
