"""The operators of the algebra, each built by a function that keeps expressions small.

Takes and reshapes sink to the leaves and slices of stored tensors that are contiguous become
stored tensors themselves, so that whatever lies in a file as it is wanted stays known as a range of
that file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.weights import casts
from vlmpass.ir_tools.weights.arrays import AnyArray, copy_tiled
from vlmpass.ir_tools.weights.boxes import (
    Box,
    cut,
    extent,
    flat_cover,
    full,
    shifted,
    slices,
    strip,
)
from vlmpass.ir_tools.weights.leaves import Expression, Held, Stored
from vlmpass.ir_tools.weights.packing import is_packed
from vlmpass.ir_tools.weights.tally import Tally

__all__ = [
    "Cast",
    "Joined",
    "Reshaped",
    "Scaled",
    "Taken",
    "Transposed",
    "Unary",
    "cast",
    "joined",
    "reshaped",
    "scaled",
    "taken",
    "transposed",
]


_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Unary(Expression):
    """What is computed from one source, and is as cheap to read as that is.

    Attributes:
        source: The source.
    """

    source: Expression

    @property
    def width(self) -> int:
        """The wider of an element here and what the source needs for one."""
        return max(self.dtype.numpy().itemsize, self.source.width)

    @property
    def strided(self) -> bool:
        """Whether the source is."""
        return self.source.strided

    def prepared(self) -> Expression:
        """Prepare the source."""
        return replace(self, source=self.source.prepared())


@dataclass(frozen=True)
class Cast(Unary):
    """The source in another element type; see `casts.convert`."""

    saturate: bool

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Cast the source's box."""
        array = self.source.read(box, tally)
        return casts.convert(
            array, self.source.dtype, self.dtype, saturate=self.saturate, tally=tally
        )


@dataclass(frozen=True)
class Taken(Unary):
    """A box of the source that is no contiguous range of it."""

    box: Box

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Read the source's box behind the origin of this one."""
        return self.source.read(shifted(box, self.box), tally)


@dataclass(frozen=True)
class Transposed(Unary):
    """The source with its axes in another order: axis i is the source's axis perm[i]."""

    perm: tuple[int, ...]

    @property
    def strided(self) -> bool:
        """True: neighbours here are far apart there."""
        return True

    @property
    def source_axes(self) -> tuple[int, ...]:
        """Which axis each axis of the source has become."""
        return tuple(self.perm.index(axis) for axis in range(len(self.perm)))

    def source_box(self, box: Box) -> Box:
        """Return the box of the source that a box of this comes from."""
        return tuple(box[axis] for axis in self.source_axes)

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Read the source in blocks that the cache holds and put each where it belongs."""
        out = np.empty(extent(box), self.dtype.numpy())
        source_box = self.source_box(box)
        as_source = out.transpose(self.source_axes)
        for block in cut(extent(source_box), _BLOCK_BYTES // out.itemsize):
            part = self.source.read(shifted(block, source_box), tally)
            copy_tiled(part, as_source[slices(block)], self.perm[-1] if self.perm else 0)
        return out


@dataclass(frozen=True)
class Reshaped(Unary):
    """The source's elements in the same row-major order under another shape."""

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Read one range of elements after the other, each as boxes of the source."""
        shape = extent(box)
        out = np.empty(shape, self.dtype.numpy())
        if out.size == 0:
            return out
        axis = len(shape)
        while axis > 0 and shape[axis - 1] == self.shape[axis - 1]:
            axis -= 1
        run = math.prod(shape[max(0, axis - 1) :])
        inner = math.prod(self.shape[axis:])
        strides = [math.prod(self.shape[i + 1 :]) for i in range(len(shape))]
        flat = out.reshape(-1, run)
        start = box[axis - 1][0] * inner if axis else 0
        for number, index in enumerate(np.ndindex(*shape[: max(0, axis - 1)])):
            first = start + sum((box[i][0] + place) * strides[i] for i, place in enumerate(index))
            self._read_flat(first, flat[number], tally)
        return out

    def _read_flat(self, first: int, out: AnyArray, tally: Tally | None) -> None:
        done = 0
        for box in flat_cover(self.source.shape, first, first + out.size):
            part = self.source.read(box, tally).reshape(-1)
            out[done : done + part.size] = part
            done += part.size


@dataclass(frozen=True)
class Scaled(Unary):
    """The source times a factor that broadcasts to its shape, rounded once to its type."""

    factor: Held

    @property
    def computed_in(self) -> ir.DataType:
        """The type of the product before it is rounded."""
        return ir.DataType.DOUBLE if self.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT

    @property
    def width(self) -> int:
        """The most bytes per element, the product before rounding included."""
        return max(self.source.width, self.computed_in.numpy().itemsize)

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Multiply the source's box with the part of the factor that belongs to it.

        Raises:
            ModelError: A product is infinite and its factors are not: sums of it would be NaN.
        """
        wide = casts.convert(self.source.read(box, tally), self.dtype, self.computed_in)
        axes = zip(box, self.factor.shape, strict=True)
        part = self.factor.read(tuple((0, 1) if n == 1 else ends for ends, n in axes))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            product = wide * part
        if (np.isinf(product) & np.isfinite(wide)).any():
            raise ModelError(
                f"a weight times the constant that multiplies its product exceeds {product.dtype}",
                remedy="convert without --simplify, which moves the constant into the weight",
            )
        if tally is not None:
            tally.underflowed += int(np.count_nonzero((product == 0) & (wide != 0) & (part != 0)))
        return casts.convert(product, self.computed_in, self.dtype, tally=tally)

    def prepared(self) -> Expression:
        """Prepare the source and the factor."""
        return replace(self, source=self.source.prepared(), factor=self.factor.prepared())


@dataclass(frozen=True)
class Joined(Expression):
    """Several sources one behind the other along an axis."""

    sources: tuple[Expression, ...]
    axis: int

    @property
    def width(self) -> int:
        """The most bytes per element of any source."""
        return max(source.width for source in self.sources)

    @property
    def strided(self) -> bool:
        """Whether any source is."""
        return any(source.strided for source in self.sources)

    def prepared(self) -> Expression:
        """Prepare all sources."""
        return replace(self, sources=tuple(source.prepared() for source in self.sources))

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Read from every source what it has of the box."""
        out = np.empty(extent(box), self.dtype.numpy())
        axis, (first, last) = self.axis, box[self.axis]
        ahead = (slice(None),) * axis
        origin = 0
        for source in self.sources:
            size = source.shape[axis]
            start, stop = max(first, origin), min(last, origin + size)
            if start < stop:
                where = (*ahead, slice(start - first, stop - first))
                out[where] = source.read(strip(box, axis, start - origin, stop - origin), tally)
            origin += size
        return out


def cast(source: Expression, dtype: ir.DataType, saturate: bool) -> Expression:
    """Cast; a cast before it that lost nothing is dropped.

    Args:
        source: What is cast.
        dtype: The new element type.
        saturate: Whether what a float8 type cannot hold becomes its largest number.
    """
    saturate = casts.saturates(dtype, saturate)
    if isinstance(source, Cast):
        inner = source.source.dtype
        by_float = inner.is_integer() and source.dtype.is_floating_point() and dtype.is_integer()
        if holds_all(source.dtype, inner) and not by_float:
            return cast(source.source, dtype, saturate)
    if source.dtype == dtype:
        return source
    if isinstance(source, Transposed):
        return transposed(cast(source.source, dtype, saturate), source.perm)
    return Cast(dtype, source.shape, source, saturate)


def taken(source: Expression, box: Box) -> Expression:
    """Take a box, as close to the leaves as it can be."""
    if box == full(source.shape):
        return source
    shape = extent(box)
    if isinstance(source, Stored):
        return _part_of_stored(source, box) or Taken(source.dtype, shape, source, box)
    if isinstance(source, Taken):
        return taken(source.source, shifted(box, source.box))
    if isinstance(source, Cast):
        return replace(source, shape=shape, source=taken(source.source, box))
    if isinstance(source, Scaled):
        axes = zip(box, source.factor.shape, strict=True)
        part = tuple((0, 1) if size == 1 else ends for ends, size in axes)
        factor = Held.of(ir.Tensor(source.factor.read(part)))
        return replace(source, shape=shape, source=taken(source.source, box), factor=factor)
    if isinstance(source, Transposed):
        return replace(source, shape=shape, source=taken(source.source, source.source_box(box)))
    if isinstance(source, Joined):
        return _part_of_joined(source, box)
    return Taken(source.dtype, shape, source, box)


def _part_of_stored(source: Stored, box: Box) -> Stored | None:
    shape = extent(box)
    if 0 in shape:
        return replace(source, shape=shape)
    axis = len(shape)
    while axis > 0 and shape[axis - 1] == source.shape[axis - 1]:
        axis -= 1
    if math.prod(shape[: max(0, axis - 1)]) != 1:
        return None
    first = sum(start * math.prod(source.shape[i + 1 :]) for i, (start, _) in enumerate(box))
    bits = source.dtype.bitwidth
    last = first + math.prod(shape)
    if first * bits % 8 or (last * bits % 8 and last != source.size):
        return None
    return replace(source, shape=shape, offset=source.offset + first * bits // 8)


def _part_of_joined(source: Joined, box: Box) -> Expression:
    axis, (first, last) = source.axis, box[source.axis]
    parts: list[Expression] = []
    origin = 0
    for part in source.sources:
        size = part.shape[axis]
        start, stop = max(first, origin), min(last, origin + size)
        if start < stop:
            parts.append(taken(part, strip(box, axis, start - origin, stop - origin)))
        origin += size
    if not parts:
        parts.append(taken(source.sources[0], strip(box, axis, 0, 0)))
    return joined(parts, axis)


def transposed(source: Expression, perm: tuple[int, ...]) -> Expression:
    """Transpose; moving only axes of extent 1 is a reshape."""
    if isinstance(source, Transposed):
        return transposed(source.source, tuple(source.perm[axis] for axis in perm))
    shape = tuple(source.shape[axis] for axis in perm)
    moving = [axis for axis in perm if source.shape[axis] != 1]
    if moving == sorted(moving):
        return reshaped(source, shape)
    return Transposed(source.dtype, shape, source, perm)


def reshaped(source: Expression, shape: tuple[int, ...]) -> Expression:
    """Reshape, at the leaves where the way there is elementwise."""
    if shape == source.shape:
        return source
    if isinstance(source, Stored):
        return replace(source, shape=shape)
    if isinstance(source, Reshaped):
        return reshaped(source.source, shape)
    if isinstance(source, Cast):
        return replace(source, shape=shape, source=reshaped(source.source, shape))
    return Reshaped(source.dtype, shape, source)


def scaled(source: Expression, factor: AnyArray) -> Expression:
    """Multiply by a factor of as many axes as the source, each of extent 1 or the source's."""
    if isinstance(source, Transposed):
        return transposed(scaled(source.source, factor.transpose(source.source_axes)), source.perm)
    wide = np.float64 if source.dtype == ir.DataType.DOUBLE else np.float32
    return Scaled(source.dtype, source.shape, source, Held.of(ir.Tensor(factor.astype(wide))))


def joined(sources: Sequence[Expression], axis: int) -> Expression:
    """Concatenate; neighbours in a file become one range again."""
    parts: list[Expression] = []
    for source in sources:
        flat = isinstance(source, Joined) and source.axis == axis
        parts.extend(source.sources if flat and isinstance(source, Joined) else (source,))
    parts = [part for part in parts if part.shape[axis]] or parts[:1]
    merged = parts[:1]
    for part in parts[1:]:
        both = _neighbours(merged[-1], part, axis)
        merged[-1:] = [both] if both else [merged[-1], part]
    if len(merged) == 1:
        return merged[0]
    first = merged[0]
    if isinstance(first, Transposed):
        alike = [p.source for p in merged if isinstance(p, Transposed) and p.perm == first.perm]
        if len(alike) == len(merged):
            return transposed(joined(alike, first.perm[axis]), first.perm)
    total = sum(part.shape[axis] for part in merged)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    return Joined(first.dtype, shape, tuple(merged), axis)


def _neighbours(left: Expression, right: Expression, axis: int) -> Expression | None:
    if not (isinstance(left, Stored) and isinstance(right, Stored)):
        return None
    if (left.path, left.stamp) != (right.path, right.stamp):
        return None
    touching = left.offset + left.nbytes == right.offset
    whole_bytes = not is_packed(left.dtype) or left.size * left.dtype.bitwidth % 8 == 0
    if not (touching and whole_bytes and math.prod(left.shape[:axis]) == 1):
        return None
    total = left.shape[axis] + right.shape[axis]
    return replace(left, shape=(*left.shape[:axis], total, *left.shape[axis + 1 :]))
