"""Scales and zero points of blocks, kept between writing a weight's numbers and writing those."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.weights.boxes import Box, slices
from vlmpass.ir_tools.weights.leaves import Expression

if TYPE_CHECKING:
    from vlmpass.rewriter_rules.quant.few_bits import Grid

__all__ = ["forget_fits", "kept_fit"]

_MOST_BYTES = 100 << 20

_Fit: TypeAlias = "tuple[Array, Array]"
_Key: TypeAlias = "tuple[Expression, Grid]"


@dataclass
class _Kept:
    """What is known of one weight, in the order of its axes.

    Attributes:
        scales: Of each block.
        zeros: Of each block.
        done: Whether they are known.
        left: How many blocks will be asked for: each for the numbers, for the scales and, where
            there are some, for the zero points.
    """

    scales: Array
    zeros: Array
    done: Array
    left: int

    @classmethod
    def of(cls, grid: Grid, count: tuple[int, int]) -> _Kept:
        """Return what nothing is known of yet."""
        middle, size = np.float32(grid.middle), count[0] * count[1]
        zeros = np.broadcast_to(middle, count) if grid.symmetric else np.empty(count, np.float32)
        done = np.zeros(count, np.bool_)
        return cls(np.empty(count, np.float32), zeros, done, size * (2 if grid.symmetric else 3))

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.done.size * (9 if self.zeros.flags.writeable else 5)

    def put(self, box: Box, scales: Array, zeros: Array) -> None:
        """Keep what was found."""
        some = slices(box)
        self.scales[some] = scales
        if self.zeros.flags.writeable:
            self.zeros[some] = zeros
        self.done[some] = True


_KEPT: OrderedDict[_Key, _Kept] = OrderedDict()
_LOCK = Lock()


def kept_fit(source: Expression, grid: Grid, box: Box, fit: Callable[[], _Fit]) -> _Fit:
    """Return scales and zero points of a box of blocks, each [others, blocks].

    A weight too large to keep them of is fitted anew whenever it is asked for.

    Args:
        source: The weight.
        grid: How it is rounded.
        box: Which blocks.
        fit: Finds them.
    """
    key = source, grid
    kept = _of(key)
    if kept is None:
        return fit()
    turned = grid.axis == 0
    if not kept.done[slices(box)].all():
        scales, zeros = fit()
        kept.put(box, *((scales.T, zeros.T) if turned else (scales, zeros)))
    found = kept.scales[slices(box)], kept.zeros[slices(box)]
    with _LOCK:
        kept.left -= found[0].size
        if kept.left <= 0 and _KEPT.get(key) is kept:
            del _KEPT[key]
    return (found[0].T, found[1].T) if turned else found


def forget_fits() -> None:
    """Let go of all that is kept, and of the weights that it was found for."""
    with _LOCK:
        _KEPT.clear()


def _of(key: _Key) -> _Kept | None:
    """Return what is kept of a weight, making room for it; None where it is too large."""
    with _LOCK:
        if key not in _KEPT:
            source, grid = key
            made = _Kept.of(grid, grid.count(source.shape))
            if made.nbytes > _MOST_BYTES:
                return None
            _KEPT[key] = made
            while sum(each.nbytes for each in _KEPT.values()) > _MOST_BYTES:
                _KEPT.popitem(last=False)
        return _KEPT[key]
