"""What passes measure by running a model, kept for its copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from vlmpass.ir_tools.run.spans import Span
from vlmpass.rewriter_rules.quant.solved import Home, Solved

__all__ = ["Measures", "measures", "measuring_once"]


@dataclass
class Measures:
    """What was measured of one model, by pass and name.

    Attributes:
        spans: Where values lie.
        solved: What weights are rounded to.
        home: Where files lie that this needs.
    """

    spans: dict[str, dict[str, Span]] = field(default_factory=dict)
    solved: dict[str, dict[str, Solved]] = field(default_factory=dict)
    home: Home = field(default_factory=Home)


_KEPT: ContextVar[Measures | None] = ContextVar("measures", default=None)


def measures() -> Measures:
    """Return what was measured; nothing yet where nothing is kept."""
    return _KEPT.get() or Measures()


@contextmanager
def measuring_once(known: Measures | None = None) -> Iterator[Measures]:
    """Within it, copies of one model have what was measured of the first.

    Args:
        known: What was measured before.
    """
    kept = Measures() if known is None else known
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)
