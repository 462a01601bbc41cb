"""How well a target runs a node, and the verdict that says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Support", "Verdict"]


class Support(IntEnum):
    """How well a target runs a node, from best to worst."""

    NATIVE = 0
    """It has a kernel."""
    AUTOMATIC = 1
    """It casts, or inlines the operator's function body, by itself."""
    UNKNOWN = 2
    """Nothing says whether it does, or what would decide it is not known of the node."""
    WRONG = 3
    """It accepts the node and computes something else."""
    UNSUPPORTED = 4
    """It refuses the node."""

    @property
    def word(self) -> str:
        """How profiles and reports spell it."""
        return self.name.lower()

    @property
    def runs(self) -> bool:
        """Whether a target is known to run such a node, and rightly."""
        return self <= Support.AUTOMATIC


@dataclass(frozen=True)
class Verdict:
    """What a target does with a node.

    Attributes:
        support: How well it runs it.
        target: The target's name.
        operator: The node's operator, with its domain unless that is the default one.
        since: The since-version of its operator that is in force; None where there is none.
        reason: Why, in one line, without the node's name; what decided where it runs, too.
        fact: The line of the profile that decided, such as ``Resize: unsupported if
            antialias = 1``; empty where no line is about it.
        missing: Whether a type, shape or constant of the node would decide and is not known.
        open: Whether that is an open axis, so that the node runs unless it has no elements.
    """

    support: Support
    target: str
    operator: str
    since: int | None
    reason: str
    fact: str
    missing: bool = False
    open: bool = False

    @property
    def runs(self) -> bool:
        """Whether the target is known to run the node, and rightly."""
        return self.support.runs
