"""Intervals of numbers, and arithmetic on them that never says less than what can come out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.operators.dtypes import end_of

__all__ = ["BOOL", "Interval", "hull", "of_type", "within"]


@dataclass(frozen=True)
class Interval:
    """All numbers from one to another; of integers, both are Python's own, which are exact.

    Attributes:
        low: The least.
        high: The greatest.
    """

    low: float
    high: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __mul__(self, other: Interval) -> Interval:
        corners = [a * b for a in self for b in other]
        return Interval(min(corners), max(corners))

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def divided(self, other: Interval, *, whole: bool) -> Interval | None:
        """Return all quotients, those of integers cut off towards zero; None where one is of 0."""
        if 0 in other:
            return None
        quotient = _cut if whole else (lambda a, b: a / b)
        corners = [quotient(a, b) for a in self for b in other]
        return Interval(min(corners), max(corners))

    def taken(self, times: Interval) -> Interval:
        """Return all sums of so many numbers, and the sums on the way there."""
        most = max(times.high, 0)
        return Interval(min(self.low, 0) * most, max(self.high, 0) * most)

    def meet(self, other: Interval | None) -> Interval:
        """Return what is in both, of which each is known to hold a number."""
        if other is None:
            return self
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Interval(low, high) if low <= high else other

    def widened(self, dtype: ir.DataType) -> Interval | None:
        """Return it with the rounding of a few operations; None where one may be infinite."""
        share = _ROUNDING.get(dtype)
        if share is None or max(-self.low, self.high) * (1 + share) >= end_of(dtype):
            return None
        return Interval(
            float(self.low) - share * (abs(self.low) + 1),
            float(self.high) + share * (abs(self.high) + 1),
        )


BOOL = Interval(0, 1)
_ROUNDING = {
    ir.DataType.DOUBLE: 2.0**-50,
    ir.DataType.FLOAT: 2.0**-21,
    ir.DataType.FLOAT16: 2.0**-8,
    ir.DataType.BFLOAT16: 2.0**-5,
}
"""By type, more than a few operations on numbers of at least 1 lose of them."""


def _cut(a: float, b: float) -> int:
    quotient = abs(int(a)) // abs(int(b))
    return quotient if (a < 0) == (b < 0) else -quotient


def hull(parts: Iterable[Interval | None]) -> Interval | None:
    """Return the least interval around several; None where one is not known, or there is none."""
    found = list(parts)
    known = [each for each in found if each is not None]
    if len(known) < len(found) or not known:
        return None
    return Interval(min(each.low for each in known), max(each.high for each in known))


def of_type(dtype: ir.DataType | None) -> Interval | None:
    """Return what a type can hold, if it is one of integers or booleans."""
    if dtype == ir.DataType.BOOL:
        return BOOL
    if dtype is None or not dtype.is_integer():
        return None
    return Interval(int(dtype.min), int(dtype.max))


def within(part: Interval | None, dtype: ir.DataType) -> bool:
    """Whether a type of integers holds all of an interval."""
    whole = of_type(dtype)
    if part is None or whole is None or math.isnan(part.low + part.high):
        return False
    return whole.low <= part.low and part.high <= whole.high
