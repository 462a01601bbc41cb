"""Boxes: per axis (start, stop), the unit in which lazy tensors are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

__all__ = [
    "Box",
    "cut",
    "extent",
    "flat_cover",
    "full",
    "grid",
    "shifted",
    "slices",
    "strip",
    "tile_shape",
]

Box = tuple[tuple[int, int], ...]


def full(shape: tuple[int, ...]) -> Box:
    """Return the box of a whole tensor."""
    return tuple((0, size) for size in shape)


def extent(box: Box) -> tuple[int, ...]:
    """Return the shape of what lies in a box."""
    return tuple(stop - start for start, stop in box)


def slices(box: Box) -> tuple[slice, ...]:
    """Return a box as numpy indices."""
    return tuple(slice(start, stop) for start, stop in box)


def shifted(box: Box, origin: Box) -> Box:
    """Return a box that was given relative to the start of another one, in that one's terms."""
    return tuple(
        (first + start, first + stop) for (start, stop), (first, _) in zip(box, origin, strict=True)
    )


def strip(box: Box, axis: int, start: int, stop: int) -> Box:
    """Return a box with the range of one axis replaced.

    Args:
        box: A range for each axis.
        axis: Which to replace, counted from the front.
        start: First index of the new range.
        stop: The index after its last.
    """
    return (*box[:axis], (start, stop), *box[axis + 1 :])


_STRETCH = 16
"""How much larger than asked for a box may be, so as to part nothing that goes together."""


def cut(shape: tuple[int, ...], limit: int, rows: int = 1) -> Iterator[Box]:
    """Yield boxes that follow each other in row-major order, each contiguous in it.

    Args:
        shape: Of the tensor; nothing is yielded if it has no elements.
        limit: Elements per box, at most (but at least one).
        rows: Indices of the first axis that are better not parted.
    """
    if 0 in shape:
        return
    axis, inner = len(shape), 1
    while axis > 0 and inner * shape[axis - 1] <= limit:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield full(shape)
        return
    axis -= 1
    step = max(1, limit // inner)
    if axis == 0 and (step >= rows or rows * inner <= _STRETCH * limit):
        step = max(1, step // rows) * rows
    tail = full(shape[axis + 1 :])
    for index in product(*(range(size) for size in shape[:axis])):
        head = tuple((i, i + 1) for i in index)
        for start in range(0, shape[axis], step):
            yield (*head, (start, min(start + step, shape[axis])), *tail)


def flat_cover(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Box]:
    """Yield the boxes that make up a range of row-major element numbers, in order.

    Args:
        shape: Of the tensor.
        start: First element.
        stop: The element after the last.
    """
    if start >= stop:
        return
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    tail = full(shape[1:])
    first, offset = divmod(start, inner)
    if offset:
        end = min(inner, stop - first * inner)
        for box in flat_cover(shape[1:], offset, end):
            yield ((first, first + 1), *box)
        first += 1
    last, rest = divmod(stop, inner)
    if first < last:
        yield ((first, last), *tail)
    if rest and last >= first:
        for box in flat_cover(shape[1:], 0, rest):
            yield ((last, last + 1), *box)


def grid(shape: tuple[int, ...], tile: tuple[int, ...]) -> Iterator[Box]:
    """Yield the boxes of at most `tile` extents that cover a tensor."""
    starts = (range(0, size, step) for size, step in zip(shape, tile, strict=True))
    for origin in product(*starts):
        yield tuple(
            (start, min(start + step, size))
            for start, step, size in zip(origin, tile, shape, strict=True)
        )


def tile_shape(shape: tuple[int, ...], other_order: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """Choose the extents of tiles that are contiguous in long runs in two orders of the axes.

    Args:
        shape: Of the tensor.
        other_order: The axes from the outermost to the innermost in the other order; in this one
            they are as in `shape`.
        limit: Elements of a tile, at most (but at least one).
    """
    tile = [1] * len(shape)

    def frontier(order: Sequence[int]) -> tuple[int, int]:
        """Return the length of a run, and the axis along which it could grow, or -1."""
        run = 1
        for axis in reversed(order):
            run *= tile[axis]
            if tile[axis] < shape[axis]:
                return run, axis
        return run, -1

    orders = (tuple(range(len(shape))), other_order)
    while True:
        _, axis = min(map(frontier, orders), key=lambda found: (found[1] < 0, found[0]))
        if axis < 0:
            return tuple(tile)
        grown = min(2 * tile[axis], shape[axis])
        if math.prod(tile) // tile[axis] * grown > limit:
            return tuple(tile)
        tile[axis] = grown
