"""What running a model may take: memory and time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vlmpass.ir_tools.system.arguments import wrong
from vlmpass.ir_tools.system.memory import physical_memory

__all__ = ["UNBOUNDED", "Allowance", "bounds_of", "default_memory"]

_MOST = 4_000_000_000
_LEAST = 1_000_000_000


def default_memory() -> int:
    """Return a quarter of this machine's memory, at least 1 GB and at most 4 GB.

    Generated inputs are small: what needs more than that for them is a model that blows up.
    """
    return min(max(physical_memory() // 4, _LEAST), _MOST)


@dataclass(frozen=True)
class Allowance:
    """What running a model may take; more of it is a `RunError`.

    Attributes:
        memory: Bytes that a runtime may take beside the weights that it is given; None for no
            bound.
        until: When it must be done, on the clock of `time.monotonic`; None for no hurry.
    """

    memory: int | None = None
    until: float | None = None

    def seconds(self) -> float | None:
        """Return how long it may still take."""
        return None if self.until is None else self.until - time.monotonic()


UNBOUNDED = Allowance()


def bounds_of(given: object) -> Allowance:
    """Return an allowance, the default one for None.

    Raises:
        ArgumentError: It is something else.
    """
    if given is None:
        return Allowance(default_memory())
    if not isinstance(given, Allowance):
        raise wrong("allowance", given, "an Allowance")
    return given
