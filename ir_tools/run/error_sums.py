"""What one pass over two arrays of floats collects, in chunks, so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import numpy.typing as npt

from vlmpass.ir_tools.worker.transport import Array

__all__ = ["QUANTILES", "ErrorSums", "constant_flag", "sums_of", "typical"]

QUANTILES = (0.5, 0.9, 0.99, 0.999)
"""The shares of elements whose relative error is told."""

_CHUNK = 1 << 20
_SAMPLE = 1 << 20
_HUGE = 1e300  # of which sums would overflow
_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
_Doubles = npt.NDArray[np.float64]


def typical(array: Array) -> float:
    """Return the median magnitude of the finite elements that are not zero; 0.0 without any."""
    flat = array.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
    sizes = np.abs(sample[np.isfinite(sample) & (sample != 0)])
    return float(np.median(sizes)) if sizes.size else 0.0


def constant_flag(array: Array) -> bool:
    """Whether all elements, of more than one, are the same and not zero."""
    flat = array.reshape(-1)
    if flat.size < 2 or not flat[0]:
        return False
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return all(bool((part == flat[0]).all()) for part in parts)


def sums_of(expected: Array, actual: Array) -> ErrorSums:
    """Return what two arrays of one shape are like against each other."""
    found = ErrorSums(max(typical(expected), typical(actual)), max(1, expected.size // _SAMPLE))
    least = (_least(expected), _least(actual))
    for e, a in _chunks(expected, actual):
        found.add(e.astype(np.float64), a.astype(np.float64), least)
        found.add_ulps(e, a)
    return found


def _chunks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _CHUNK):
        yield tuple(array[start : start + _CHUNK] for array in flat)


def _least(array: Array) -> float:
    """Return the least normal magnitude of a type; 0.0 where it has none."""
    try:
        return float(ml_dtypes.finfo(array.dtype).smallest_normal)  # type: ignore[no-untyped-call]
    except ValueError:
        return 0.0


def _ordered(array: Array) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]:
    """Return signs, and magnitudes as numbers that count what a type can represent."""
    bits = np.ascontiguousarray(array).view(_BITS[array.dtype.itemsize]).astype(np.uint64)
    top = np.uint64(8 * array.dtype.itemsize - 1)
    sign = (bits >> top).astype(np.bool_)
    return sign, bits & np.uint64((1 << int(top)) - 1)


@dataclass
class ErrorSums:
    """What has been seen so far.

    Attributes:
        scale: The typical size that errors are relative to.
        step: Of how many elements one is kept for quantiles.
        max_abs, max_rel, sum_abs, sum_rel: Of the differences of elements finite in both.
        finite: How many these are.
        nan, inf, denormal: How many elements are, expected and actual.
        misplaced: How many elements are NaN or infinite in one only.
        differ: How many of the finite ones do.
        ulps: Largest distance in representable numbers of the narrower type; None for types below
            16 bits.
    """

    scale: float
    step: int = 1
    max_abs: float = 0.0
    max_rel: float = 0.0
    sum_abs: float = 0.0
    sum_rel: float = 0.0
    finite: int = 0
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)
    denormal: tuple[int, int] = (0, 0)
    misplaced: int = 0
    ulps: int | None = None
    differ: int = 0
    _dot: float = 0.0
    _squares: tuple[float, float] = (0.0, 0.0)
    _error: float = 0.0
    _size: float = 0.0
    _kept: list[_Doubles] = field(default_factory=list)

    def add(self, e: _Doubles, a: _Doubles, least: tuple[float, float]) -> None:
        """Take a chunk of both.

        Args:
            e: Expected.
            a: Actual.
            least: The least normal magnitudes of their types.
        """
        both = (e, a)
        self.nan = _plus(self.nan, *(np.isnan(each) for each in both))
        self.inf = _plus(self.inf, *(np.isinf(each) for each in both))
        tiny = ((x != 0) & (np.abs(x) < end) for x, end in zip(both, least, strict=True))
        self.denormal = _plus(self.denormal, *tiny)
        finite = np.isfinite(e) & np.isfinite(a)
        same = (e == a) | (np.isnan(e) & np.isnan(a))
        self.misplaced += int((~finite & ~same).sum())
        if finite.any():
            self._add_finite(e[finite], a[finite])

    def _add_finite(self, e: _Doubles, a: _Doubles) -> None:
        shrink = 1.0 if max(np.abs(e).max(), np.abs(a).max()) < _HUGE else 0.25
        gap = np.abs(e * shrink - a * shrink)
        size = np.maximum(np.abs(e), np.abs(a)) * shrink + self.scale * shrink
        ratio = np.divide(gap, size, out=np.zeros_like(gap), where=gap > 0)
        self.finite += e.size
        with np.errstate(over="ignore"):
            gap = gap / shrink
        self.max_abs = max(self.max_abs, float(gap.max()))
        self.max_rel = max(self.max_rel, float(ratio.max()))
        self.sum_abs += float(gap.sum())
        self.sum_rel += float(ratio.sum())
        self._kept.append(ratio[:: self.step])
        # Divided by the typical size, or squares of 1e200 would overflow.
        unit = self.scale or 1.0
        e, a, gap = e / unit, a / unit, gap / unit
        differ = gap > 0
        self.differ += int(differ.sum())
        self._error += float(gap @ gap)
        self._size += float((e[differ] ** 2 + (self.scale / unit) ** 2).sum())
        self._dot += float(e @ a)
        self._squares = (self._squares[0] + float(e @ e), self._squares[1] + float(a @ a))

    def add_ulps(self, e: Array, a: Array) -> None:
        """Take a chunk of both, in their own types."""
        narrow = e.dtype if e.dtype.itemsize <= a.dtype.itemsize else a.dtype
        if narrow.itemsize not in _BITS:
            return
        with np.errstate(over="ignore"):
            e, a = e.astype(narrow), a.astype(narrow)
        finite = np.isfinite(e) & np.isfinite(a)
        (up, one), (down, two) = _ordered(e[finite]), _ordered(a[finite])
        far = np.where(up == down, np.maximum(one, two) - np.minimum(one, two), one + two)
        self.ulps = max(self.ulps or 0, int(far.max(initial=0)))

    def mean_abs(self) -> float:
        """Return the mean absolute difference."""
        return self.sum_abs / self.finite if self.finite else 0.0

    def mean_rel(self) -> float:
        """Return the mean relative difference."""
        return self.sum_rel / self.finite if self.finite else 0.0

    def norm(self) -> float:
        """Return the error's norm relative to that of sizes, over the elements that differ."""
        return math.sqrt(self._error / self._size) if self._size else 0.0

    def snr(self) -> float | None:
        """Return the power of what is expected over that of the error, in decibels; None without.

        None, too, where nothing but zeros is expected.
        """
        if not self._error or not self._squares[0]:
            return None
        return 10 * (math.log10(self._squares[0]) - math.log10(self._error))

    def cosine(self) -> float:
        """Return the cosine of the angle between the two, 1.0 where both are zero."""
        if not all(self._squares):
            return 1.0 if self._squares[0] == self._squares[1] else 0.0
        cosine = self._dot / math.sqrt(self._squares[0]) / math.sqrt(self._squares[1])
        return min(max(cosine, -1.0), 1.0)

    def quantiles(self) -> tuple[float, ...]:
        """Return the relative errors that `QUANTILES` of the elements do not exceed."""
        if not self._kept:
            return tuple(0.0 for _ in QUANTILES)
        found = np.quantile(np.concatenate(self._kept), QUANTILES)
        return tuple(float(each) for each in found)


def _plus(
    before: tuple[int, int], e: npt.NDArray[np.bool_], a: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    return before[0] + int(e.sum()), before[1] + int(a.sum())
