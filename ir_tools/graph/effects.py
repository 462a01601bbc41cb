"""What rules and passes may do to the numbers that a model computes, as they declare it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["EXACT", "Effect", "NumberChanges", "changes"]


class Effect(str, enum.Enum):
    """A way in which numbers differ afterwards, beyond the order of sums.

    Attributes:
        ROUNDS_VALUES: Values are rounded to a type by arithmetic, as the source rounds them by
            computing in it.
        ROUNDS_CONSTANTS: Constants are computed in a narrow type that the source computes when it
            runs.
        RESTORES: Numbers that an exporter rounded to a narrow type are what they were.
    """

    ROUNDS_VALUES = "rounds values"
    ROUNDS_CONSTANTS = "rounds constants"
    RESTORES = "restores numbers"


@dataclass(frozen=True)
class NumberChanges:
    """What was done to numbers between two models, which a comparison allows for.

    Attributes:
        effects: What fired, in order; nothing else may differ.
        restored: Which numbers are what they were, as `restore` tells it; empty if none or unknown.
    """

    effects: tuple[Effect, ...] = ()
    restored: str = ""

    def without(self, effect: Effect) -> NumberChanges:
        """Return the changes but those of one kind."""
        rest = tuple(each for each in self.effects if each is not effect)
        return NumberChanges(rest, self.restored)

    def __or__(self, other: NumberChanges) -> NumberChanges:
        told = dict.fromkeys(each for each in (self.restored, other.restored) if each)
        return changes(*self.effects, *other.effects, restored=", ".join(told))


def changes(*effects: Effect, restored: str = "") -> NumberChanges:
    """Return changes of some kinds, each of them once.

    Args:
        *effects: The kinds, in any order.
        restored: Which numbers are what they were.
    """
    return NumberChanges(tuple(each for each in Effect if each in effects), restored)


EXACT = NumberChanges()
"""Nothing: two models compute the same."""
