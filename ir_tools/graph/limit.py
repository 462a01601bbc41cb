"""The running number of changes: whoever is about to change a graph may ask for one more.

A bisection runs a pipeline again with a lower limit; the change with the number just above the last
good limit is the culprit. Without a limit the question costs one look at a context variable.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["LIMIT", "Changes", "may_apply"]


@dataclass
class Changes:
    """How many changes are allowed and how many were made.

    Attributes:
        limit: No change after this one; None counts without limit.
        made: How many were allowed so far.
        last: The last one allowed, such as ``erf-gelu at /layers.0/Gelu``.
    """

    limit: int | None = None
    made: int = 0
    last: str = ""

    @property
    def exhausted(self) -> bool:
        """Whether no further change is allowed."""
        return self.limit is not None and self.made >= self.limit

    def take(self, what: str) -> bool:
        """Count one change and return True, or return False where the limit is reached."""
        if self.exhausted:
            return False
        self.made += 1
        self.last = what
        return True


LIMIT: ContextVar[Changes | None] = ContextVar("LIMIT", default=None)
"""What holds for the pipeline that is running; None where nobody counts."""


def may_apply(rule: str, node: str) -> bool:
    """Ask for one more rule application, right before it is made.

    Args:
        rule: The rule's name.
        node: The name of the node it is about to change.

    Returns:
        False where a limit is set and reached; the caller then leaves the node as it is.
    """
    changes = LIMIT.get()
    return changes is None or changes.take(f"{rule} at {node}")
