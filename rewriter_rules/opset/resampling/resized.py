"""A constant image, interpolated: a weight that the writer computes, plane by plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.weights import Box, Expression, LazyWeight, Tally, as_weight
from vlmpass.ir_tools.weights.arrays import AnyArray
from vlmpass.ir_tools.weights.casts import convert
from vlmpass.ir_tools.weights.leaves import Held

__all__ = ["resized"]

_MOST_AT_ONCE = 32 << 20
"""Bytes of a plane, all of which is read for one element, above which the graph interpolates."""


@dataclass(frozen=True)
class _Resized(Expression):
    """The source with some axes made longer or shorter, rounded once to its type.

    Attributes:
        source: The image.
        axes: Which axes.
        parts: For each its matrix of weights (new size, old size), or the index of each element.
    """

    source: Expression
    axes: tuple[int, ...]
    parts: tuple[Held, ...]

    @property
    def stages(self) -> list[int]:
        """The elements of a plane before, between and after the axes."""
        sizes = {axis: self.source.shape[axis] for axis in self.axes}
        found = [math.prod(sizes.values())]
        for axis in self.axes:
            sizes[axis] = self.shape[axis]
            found.append(math.prod(sizes.values()))
        return found

    @property
    def width(self) -> int:
        """The bytes of a plane on the way, by its elements here."""
        return -(-max(self.stages) // max(1, self.stages[-1])) * max(8, self.source.width)

    @property
    def strided(self) -> bool:
        """True: neighbours here are made of lines there."""
        return True

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Read whole lines of the image and sum them in double."""
        lines = tuple(
            (0, size) if axis in self.axes else box[axis]
            for axis, size in enumerate(self.source.shape)
        )
        array = self.source.read(lines, tally)
        gathers = all(len(part.shape) == 1 for part in self.parts)
        if not gathers:
            array = convert(array, self.dtype, ir.DataType.DOUBLE)
        for axis, part in zip(self.axes, self.parts, strict=True):
            if gathers:
                array = np.take(array, part.read((box[axis],)), axis)
                continue
            weights = part.read((box[axis], (0, part.shape[1]))).astype(np.float64)
            array = np.moveaxis(np.tensordot(weights, array, (1, axis)), 0, axis)
        array = np.ascontiguousarray(array)
        return array if gathers else convert(array, ir.DataType.DOUBLE, self.dtype, tally=tally)

    def prepared(self) -> Expression:
        """Prepare the source."""
        return replace(self, source=self.source.prepared())


def resized(
    image: ir.TensorProtocol,
    axes: Sequence[int],
    parts: Sequence[npt.NDArray[np.float32] | npt.NDArray[np.int64]],
) -> ir.TensorProtocol | None:
    """Return a constant interpolated along some axes, computed when it is written.

    Args:
        image: Of any size; no byte of it is read.
        axes: Which axes, in the order in which they are taken.
        parts: For each its matrix of weights (new size, old size), or the index of each element.

    Returns:
        A lazy tensor; None if a plane of the image is too large to be read at once.
    """
    source = as_weight(image).expression
    shape = list(source.shape)
    for axis, part in zip(axes, parts, strict=True):
        shape[axis] = len(part)
    held = tuple(Held.of(ir.tensor(part)) for part in parts)
    found = _Resized(source.dtype, tuple(shape), source, tuple(axes), held)
    return LazyWeight(found) if max(found.stages) * 8 <= _MOST_AT_ONCE else None
