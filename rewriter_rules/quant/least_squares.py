"""Scales of blocks with the least squares of errors, sought on pieces that a cache holds.

Where w are the weights of a block and m its numbers less the zero point, the best scale for those
is <w, m> / <m, m>, and <w, w> - <w, m>^2 / <m, m> is lost. So each scale that is tried gives
numbers, and those the scale that they want; the best of those is tried, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlmpass.ir_tools.evaluate import Array

__all__ = ["Best", "pieces"]

_PIECE_ELEMENTS = 1 << 19
"""Of float32: many, so that threads seldom wait for each other between two operations."""
_SURE = np.float32(1 + 4e-6)
"""What is gained more than this many times is more, whatever sums in float32 lose."""


def pieces(blocks: Array, inner: int) -> Iterator[tuple[tuple[slice, slice], Array]]:
    """Yield blocks as [block, number of blocks] with where they lie along the other two axes.

    Args:
        blocks: All of them.
        inner: The axis along which the numbers of a block lie: 1 or 2.
    """
    one, two = (size for axis, size in enumerate(blocks.shape) if axis != inner)
    block = blocks.shape[inner]
    wide = min(two, max(1, _PIECE_ELEMENTS // max(1, block)))
    high = max(1, _PIECE_ELEMENTS // max(1, block * wide))
    for start in range(0, one, high):
        for first in range(0, two, max(1, wide)):
            where = slice(start, start + high), slice(first, first + wide)
            part = np.moveaxis(blocks, inner, -1)[where]
            yield where, np.ascontiguousarray(np.moveaxis(part, -1, 0)).reshape(block, -1)


class Best:
    """The best scale and zero point of each block, of all that were tried; the first if equal.

    Attributes:
        scales: The best.
        zeros: The zero points they go with.
        wanted: The scales that numbers want, of those whose numbers could do best.
        of_wanted: The zero points these go with.

    Args:
        piece: [block, number of blocks].
        top: The highest number; the lowest is 0.
        scales: [trials, number of blocks]; the first stay where squares are beyond float32.
        zeros: The zero points they go with.
    """

    def __init__(self, piece: Array, top: int, scales: Array, zeros: Array) -> None:
        self._piece, self._top = piece, np.float32(top)
        self._gain, self._hope = np.full((2, piece.shape[1]), -1, np.float32)
        self.scales = scales[0].copy()
        self.zeros = zeros[0].copy()
        self.wanted = scales[0].copy()
        self.of_wanted = zeros[0].copy()
        self.consider(scales, zeros)

    def consider(self, scales: Array, zeros: Array) -> None:
        """Try scales and zero points [trials, number of blocks], and see what their numbers want.

        Of <w, w> is lost, with a scale s, all but 2s <w, m> - s^2 <m, m>.
        """
        numbers = self._numbers(scales, zeros)
        with np.errstate(all="ignore"):
            both = np.einsum("im,icm->cm", self._piece, numbers)
            own = np.einsum("icm,icm->cm", numbers, numbers)
            wanted = np.divide(both, own, out=scales.copy(), where=own > 0)
            hopes, gains = wanted * both, scales * (both + both - scales * own)
            for at, (hope, gain) in enumerate(zip(hopes, gains, strict=True)):
                better = hope > self._hope
                news = hope, wanted[at], zeros[at]
                for kept, new in zip((self._hope, self.wanted, self.of_wanted), news, strict=True):
                    np.copyto(kept, new, where=better)
                better = gain > self._gain * _SURE
                news = gain, scales[at], zeros[at]
                for kept, new in zip((self._gain, self.scales, self.zeros), news, strict=True):
                    np.copyto(kept, new, where=better)

    def _numbers(self, scales: Array, zeros: Array) -> Array:
        """Return numbers less the zero points, [block, trials, number of blocks]."""
        held: Array = self._piece[:, None] / scales
        np.rint(held, out=held)
        low, high = -zeros, self._top - zeros
        if zeros.size and (zeros == zeros[0, 0]).all():  # for which numpy is faster
            np.clip(held, low[0, 0], high[0, 0], out=held)
        else:
            np.maximum(held, low, out=held)
            np.minimum(held, high, out=held)
        return held
