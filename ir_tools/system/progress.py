"""Who is told how far the run of a model in segments has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["PROGRESS", "telling"]

PROGRESS: ContextVar[Callable[[int, int], None] | None] = ContextVar("PROGRESS", default=None)
"""Takes how many segments have run, and of how many; None where nobody is told."""


@contextmanager
def telling(told: Callable[[int, int], None]) -> Iterator[None]:
    """Let a function be told meanwhile, after every segment."""
    token = PROGRESS.set(told)
    try:
        yield
    finally:
        PROGRESS.reset(token)
