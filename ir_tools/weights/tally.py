"""Counts of the values that a cast could not keep."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tally"]


@dataclass
class Tally:
    """How many values casts lost, filled while weights are evaluated.

    Attributes:
        overflowed: Finite values that became infinite, NaN, or the largest finite value instead.
        underflowed: Values other than 0 that became 0.
        subnormal: Values that became subnormal: fewer digits, and none where hardware flushes them.
    """

    overflowed: int = 0
    underflowed: int = 0
    subnormal: int = 0

    def __bool__(self) -> bool:
        return bool(self.overflowed or self.underflowed or self.subnormal)

    def add(self, other: Tally) -> None:
        """Add the counts of another tally to this one."""
        self.overflowed += other.overflowed
        self.underflowed += other.underflowed
        self.subnormal += other.subnormal
