"""The executor of the caller: other processes, or machines that share folders with this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["EXECUTOR", "running_on"]

EXECUTOR: ContextVar[Executor | None] = ContextVar("EXECUTOR", default=None)
"""What runs the segments of large models; None where this process does."""


@contextmanager
def running_on(executor: Executor | None) -> Iterator[None]:
    """Let an executor run the segments of large models meanwhile."""
    token = EXECUTOR.set(executor)
    try:
        yield
    finally:
        EXECUTOR.reset(token)
