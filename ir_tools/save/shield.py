"""Work that Ctrl-C must not stop half way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["shielded"]

Result = TypeVar("Result")


def shielded(work: Callable[[], Result]) -> Result:
    """Run something to its end, and only then let a KeyboardInterrupt through.

    It runs in a thread of its own, where Python raises no KeyboardInterrupt.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
