"""Weights rounded to few bits, as lazy tensors: scales, zero points and numbers of each block.

A block is so many neighbours along one axis of a matrix, the last one perhaps shorter, that share a
scale and a zero point: `weight = scale * (number - zero)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.weights.boxes import Box, cut, strip
from vlmpass.ir_tools.weights.expressions import Unary
from vlmpass.ir_tools.weights.leaves import Expression, Held
from vlmpass.ir_tools.weights.tally import Tally
from vlmpass.rewriter_rules.quant.kept_fits import kept_fit
from vlmpass.rewriter_rules.quant.least_squares import Best, pieces

__all__ = ["Grid", "Numbers", "Rounded", "Scales", "Zeros"]

_SHARES = {4: (1, 0.91, 0.82), 2: (1, 0.85, 0.7, 0.55, 0.4)}
"""What the range of a block is tried at, by bits: large weights may be cut off."""
_STEPS = 2
"""Scales that are tried then, each the one that the best numbers want."""
_REFINEMENTS = 3
"""The same where zero points are free."""
_FREE_RANGES = (1.0, 0.92, 0.84, 0.76)
"""The ranges there."""
_HALVES = 4
"""Half-quadratic steps from each of them, before least squares."""
_NORM, _WEIGHT = 0.7, 10.0
"""The norm of errors whose shrinkage those steps take, and what it weighs: those of HQQ."""
_READ_ELEMENTS = 1 << 20

_Found: TypeAlias = "tuple[Array, Array, Array]"


@dataclass(frozen=True)
class Grid:
    """How a weight is rounded.

    Attributes:
        bits: Of each number.
        axis: The axis of the matrix along which blocks lie.
        block: Numbers with one scale; all along the axis if it is as long.
        symmetric: Whether the zero point is the middle of the numbers.
        search: Whether the range of fewer than 8 bits is the one with the least squares of errors,
            not the extremes.
        kind: The element type of the scales.
        mirrored: Whether scales may be negative, where zero is in the middle and ranges are sought.
        weight: What the weight is called, for messages.
        free: Whether zero points are any numbers, as MatMulNBits takes them, and not whole ones.
    """

    bits: int
    axis: int
    block: int
    symmetric: bool
    search: bool
    kind: ir.DataType
    mirrored: bool = False
    weight: str = field(default="", compare=False)
    free: bool = False

    @property
    def middle(self) -> int:
        """The number that stands for zero where that is symmetric."""
        return 1 << (self.bits - 1)

    def count(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the shape of the scales of a weight."""
        blocks = -(-shape[self.axis] // self.block)
        return (blocks, shape[1]) if self.axis == 0 else (shape[0], blocks)

    def grouped(self, weight: Array, block: int) -> Array:
        """Return a part of whole blocks as [others, blocks, block], what is missing being zero.

        Raises:
            ModelError: A number is not finite, or two may be too far apart for float32.
        """
        filled, missing = weight.astype(np.float32, copy=False), -weight.shape[self.axis] % block
        if missing:
            filled = np.pad(filled, [(0, missing if axis == self.axis else 0) for axis in (0, 1)])
        most = np.finfo(np.float32).max / (1 if self.symmetric else 2)
        if not (-most <= filled.min(initial=0) and filled.max(initial=0) <= most):
            what = "too large" if np.isfinite(filled).all() else "not finite"
            raise ModelError(
                f"weight {self.weight} is {what}, and is to be rounded to {self.bits} bits",
                remedy="exclude the products that it is in",
            )
        if self.axis == 1:
            return filled.reshape(len(filled), -1, block)
        turned: Array = filled.reshape(-1, block, filled.shape[1]).transpose(2, 0, 1)
        return turned

    def fit(self, groups: Array) -> tuple[Array, Array]:
        """Return the scale and the zero point of each block, as float32.

        Args:
            groups: Of `grouped`.
        """
        if self.free or not self.search or self.bits not in _SHARES:
            low, high = groups.min(-1), groups.max(-1)
            return self._freely(groups, low, high) if self.free else self._spanned(low, high)
        # as they lie in memory: [blocks, block, others], or [others, blocks, block]
        turned = self.axis == 0
        lying, inner = (groups.transpose(1, 2, 0), 1) if turned else (groups, 2)
        found = np.empty((2, *(size for axis, size in enumerate(lying.shape) if axis != inner)),
                         np.float32)  # fmt: skip
        for where, piece in pieces(lying, inner):
            both = slice(None), *where
            some = found[both]
            some[...] = np.stack(self._sought(piece)).reshape(some.shape)
        scales, zeros = (each.T if turned else each for each in found)
        return scales, zeros

    def _sought(self, piece: Array) -> tuple[Array, Array]:
        """Return the scales and zero points of blocks [block, number of blocks]."""
        if piece.shape[1] == 1:  # the sums of one alone have another order in numpy
            scales, zeros = self._sought(np.repeat(piece, 2, axis=1))
            return scales[:1], zeros[:1]
        low, high = piece.min(0), piece.max(0)
        ends = [(low * np.float32(share), high * np.float32(share)) for share in _SHARES[self.bits]]
        tried = [self._spanned(*each) for each in ends]
        if self.mirrored:
            tried += [self._mirrored(*each) for each in ends]
        scales, zeros = (np.stack(each) for each in zip(*tried, strict=True))
        best = Best(piece, (1 << self.bits) - 1, scales, zeros)
        for _ in range(_STEPS):
            best.consider(self._signed(best.wanted)[None], best.of_wanted[None].copy())
        return best.scales, best.zeros

    def _freely(self, groups: Array, low: Array, high: Array) -> tuple[Array, Array]:
        """Return scales and free zero points: half-quadratic steps, then least squares of both."""
        steps = np.float32((1 << self.bits) - 1)
        found: _Found | None = None
        for share in (np.float32(each) for each in _FREE_RANGES):
            span, middle = (high - low) * share, (high + low) / 2
            wide = np.where(span > 0, span, np.maximum(np.abs(low), np.abs(high)))
            scales = self._scales(wide / steps)
            tried = scales, self._kept((span / 2 - middle) / scales)
            for step in range(_HALVES):
                tried = self._half_quadratic(groups, *tried, _WEIGHT * 1.01**step)
            found = self._better(groups, found, tried)
            for _ in range(_REFINEMENTS):
                tried = self._affine(groups, *tried)
                found = self._better(groups, found, tried)
        assert found is not None
        return found[0], found[1]

    def _kept(self, zeros: Array) -> Array:
        return zeros.astype(self.kind.numpy()).astype(np.float32)

    def _half_quadratic(
        self, groups: Array, scales: Array, zeros: Array, weight: float
    ) -> tuple[Array, Array]:
        """Return zero points that suit errors less what is shrunk away, as of outliers."""
        numbers = self.numbers(groups, scales, zeros)
        error = groups - (numbers - zeros[..., None]) * scales[..., None]
        size = np.abs(error)
        kept = np.sign(error) * np.maximum(size - (size + 1e-8) ** (_NORM - 1) / weight, 0)
        wanted = (numbers - (groups - kept) / scales[..., None]).mean(-1, dtype=np.float32)
        return scales, self._kept(wanted)

    def _affine(self, groups: Array, scales: Array, zeros: Array) -> tuple[Array, Array]:
        """Return the scale and the zero point that suit the numbers of others best."""
        numbers = self.numbers(groups, scales, zeros)
        number, weight = numbers.mean(-1), groups.mean(-1)
        spread = numbers - number[..., None]
        squares = np.square(spread).sum(-1)
        slope = (spread * groups).sum(-1) / np.where(squares > 0, squares, np.float32(1))
        found = self._scales(np.where(slope > 0, slope, scales))
        return found, self._kept(number - weight / found)

    def _better(self, groups: Array, found: _Found | None, tried: tuple[Array, Array]) -> _Found:
        """Return scales, zero points and errors, of whichever is nearer in each block."""
        error = self._error(groups, *tried)
        if found is None:
            return *tried, error
        better = error < found[2]
        scales, zeros, errors = (
            np.where(better, new, old) for new, old in zip((*tried, error), found, strict=True)
        )
        return scales, zeros, errors

    def _mirrored(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Return what puts the extreme on the lowest number, with a negative scale if it is above.

        There is one number more below zero than above, which then serves the larger side.
        """
        wanted = np.where(np.abs(high) > np.abs(low), high, low) / np.float32(-self.middle)
        scales = self._signed(wanted)
        return scales, np.full_like(scales, self.middle)

    def numbers(self, groups: Array, scales: Array, zeros: Array) -> Array:
        """Return the numbers of blocks, from 0 to 2**bits - 1, as float32.

        Args:
            groups: Of `grouped`.
            scales: Of each block.
            zeros: Of each block.
        """
        scaled: Array = groups / scales[..., None]
        if self.free:
            scaled += zeros[..., None]
        np.rint(scaled, out=scaled)
        if not self.free:
            scaled += zeros[..., None]
        low, high = np.float32(self._even), np.float32((1 << self.bits) - 1)
        clipped: Array = np.clip(scaled, low, high, out=scaled)
        return clipped

    @property
    def _even(self) -> bool:
        """Whether as many numbers lie below zero as above: 8 bits can do without the last one."""
        return self.symmetric and self.bits == 8

    def _spanned(self, low: Array, high: Array) -> tuple[Array, Array]:
        steps = np.float32((1 << self.bits) - 1)
        if self.symmetric:
            peak = np.maximum(np.abs(low), np.abs(high))
            scales = self._scales(peak / np.float32(self.middle - 1))
            return scales, np.full_like(scales, self.middle)
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scales = self._scales((high - low) / steps)
        return scales, np.clip(np.rint(-low / scales), 0, steps)

    def _scales(self, wanted: Array) -> Array:
        rounded = wanted.astype(self.kind.numpy()).astype(np.float32)
        return np.where(rounded > 0, rounded, np.float32(1))

    def _signed(self, wanted: Array) -> Array:
        """Return scales of either sign as they are stored."""
        return np.copysign(self._scales(np.abs(wanted)), wanted)

    def _error(self, groups: Array, scales: Array, zeros: Array) -> Array:
        back = (self.numbers(groups, scales, zeros) - zeros[..., None]) * scales[..., None]
        squares: Array = np.square(back - groups).sum(-1, dtype=np.float64)
        return squares


@dataclass(frozen=True)
class _OfBlocks(Unary):
    """What is found block by block.

    Attributes:
        grid: How the weight is rounded.
        held: The least and the greatest of every column, where a block is a whole one.
    """

    grid: Grid
    held: tuple[Held, Held] | None = None

    @property
    def width(self) -> int:
        """Bytes of a few copies in float32."""
        return 16

    @property
    def rows(self) -> int:
        """Those of a block, where blocks lie along the rows and are no whole columns."""
        grid = self.grid
        return grid.block if grid.axis == 0 and grid.block < self.source.shape[0] else 1

    def prepared(self) -> Expression:
        """Prepare the source, and read it once where columns have one scale by their extremes."""
        source, grid = self.source.prepared(), self.grid
        rows, columns = source.shape
        sought = grid.search or grid.free  # which takes every number, and such blocks are short
        if sought or grid.axis == 1 or grid.block < rows or self.held is not None:
            return replace(self, source=source)
        low, high = np.zeros((2, 1, columns), np.float32)
        for box in cut(source.shape, _READ_ELEMENTS):
            part, some = source.read(box).astype(np.float32), slice(*box[1])
            low[0, some] = np.minimum(low[0, some], part.min(0))
            high[0, some] = np.maximum(high[0, some], part.max(0))
        return replace(self, source=source, held=(_held(low), _held(high)))

    def fitted(self, box: Box, groups: Array | None = None) -> tuple[Array, Array]:
        """Return scales and zero points of a box of blocks, each [others, blocks].

        Args:
            box: Which blocks.
            groups: What is in them, if that was read.
        """
        grid = self.grid
        if self.held is not None:
            low, high = (each.read(((0, 1), box[1])) for each in self.held)
            return grid.fit(grid.grouped(np.concatenate([low, high]), 2))

        def fit() -> tuple[Array, Array]:
            first, last = box[grid.axis]
            rows = (first * grid.block, min(last * grid.block, self.source.shape[grid.axis]))
            return grid.fit(self._groups(box, *rows) if groups is None else groups)

        return kept_fit(self.source, grid, box, fit) if grid.search or grid.free else fit()

    def _groups(self, box: Box, first: int, last: int) -> Array:
        """Return blocks of some rows along the axis, of others as a box has them."""
        part = self.source.read(strip(box, self.grid.axis, first, last))
        return self.grid.grouped(part, self.grid.block if self.held is None else last - first)

    def rounded(self, box: Box) -> tuple[Array, Array, Array, slice]:
        """Return the blocks that a box touches: numbers, scales, zero points; and what of them."""
        grid = self.grid
        start, stop = box[grid.axis]
        first, last = start // grid.block, -(-stop // grid.block)
        origin, end = start, stop
        if self.held is None:
            origin, end = first * grid.block, min(last * grid.block, self.source.shape[grid.axis])
        groups = self._groups(box, origin, end)
        scales, zeros = self.fitted(strip(box, grid.axis, first, last), groups)
        wanted = slice(start - origin, stop - origin)
        return grid.numbers(groups, scales, zeros), scales[..., None], zeros[..., None], wanted

    def laid(self, found: Array, wanted: slice = slice(None)) -> Array:
        """Return some of what is [others, blocks, ...] in the order of the weight's axes."""
        if self.grid.axis == 0:
            turned = np.moveaxis(found, 0, -1)
            part = turned.reshape(-1, turned.shape[-1])[wanted]
        else:
            part = found.reshape(len(found), -1)[:, wanted]
        return np.ascontiguousarray(part)


def _held(array: Array) -> Held:
    return Held.of(ir.Tensor(array))


@dataclass(frozen=True)
class _PerBlock(_OfBlocks):
    """What each block has one of."""

    @property
    def width(self) -> int:
        """Bytes of a few copies of a block in float32, or of its extremes."""
        return 16 * (2 if self.held is not None else self.grid.block)

    @property
    def rows(self) -> int:
        """One: no block is more than a number here."""
        return 1


@dataclass(frozen=True)
class Scales(_PerBlock):
    """The scales of a weight's blocks."""

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Fit the blocks of a box."""
        return self.laid(self.fitted(box)[0].astype(self.dtype.numpy()))


@dataclass(frozen=True)
class Zeros(_PerBlock):
    """The zero points of a weight's blocks."""

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Fit the blocks of a box."""
        return self.laid(self.fitted(box)[1].astype(self.dtype.numpy()))


@dataclass(frozen=True)
class Numbers(_OfBlocks):
    """The numbers that a weight is rounded to, from 0 to 2**bits - 1, less a shift.

    Attributes:
        shift: What is taken off, the middle where the type is signed.
    """

    shift: int = 0

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Round the blocks that a box touches."""
        numbers, _, _, wanted = self.rounded(box)
        bits, grid = self.dtype.bitwidth, self.grid
        if bits < 8 and bits == grid.bits and self.shift in (0, grid.middle):
            whole = numbers.astype(np.uint8)
            whole ^= np.uint8(self.shift)  # less the middle, in so many bits
            return self.laid(whole, wanted).view(self.dtype.numpy())
        numbers -= np.float32(self.shift)
        return self.laid(numbers.astype(self.dtype.numpy()), wanted)


@dataclass(frozen=True)
class Rounded(_OfBlocks):
    """A weight after rounding, as a float again: ``scale * (number - zero point)``."""

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Round the blocks that a box touches and scale them."""
        numbers, scales, zeros, wanted = self.rounded(box)
        return self.laid(((numbers - zeros) * scales).astype(self.dtype.numpy()), wanted)
