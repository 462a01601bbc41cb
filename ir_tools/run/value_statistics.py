"""What the elements of one value are like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmpass.ir_tools.worker.transport import Array

__all__ = ["Statistics", "statistics_of"]


@dataclass(frozen=True)
class Statistics:
    """What the elements of one value are like.

    Attributes:
        least: The smallest finite one.
        most: The largest finite one.
        mean: Of the finite ones.
        deviation: Standard deviation of the finite ones.
        nan: How many are NaN.
        inf: How many are infinite.
        zero: How many are zero.
        size: How many there are.
    """

    least: float
    most: float
    mean: float
    deviation: float
    nan: int
    inf: int
    zero: int
    size: int

    @property
    def magnitude(self) -> float:
        """The largest finite magnitude."""
        return max(abs(self.least), abs(self.most))


def statistics_of(value: Array) -> Statistics:
    """Return them; of what is no number only how many there are."""
    if value.dtype.kind not in "fiub" or not value.size:
        return Statistics(0.0, 0.0, 0.0, 0.0, 0, 0, 0, value.size)
    numbers = value.astype(np.float64).ravel()
    finite = numbers[np.isfinite(numbers)]
    nan = int(np.isnan(numbers).sum())
    inf = numbers.size - finite.size - nan
    zero = int((finite == 0).sum())
    if not finite.size:
        return Statistics(0.0, 0.0, 0.0, 0.0, nan, inf, zero, numbers.size)
    return Statistics(
        float(finite.min()),
        float(finite.max()),
        float(finite.mean()),
        float(finite.std()),
        nan,
        inf,
        zero,
        numbers.size,
    )
