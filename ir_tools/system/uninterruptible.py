"""Work that Ctrl-C must not stop half way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["shielded"]

Result = TypeVar("Result")


def shielded(work: Callable[[], Result]) -> Result:
    """Run something to its end, and only then let a KeyboardInterrupt through.

    It runs in a thread of its own, where Python raises no KeyboardInterrupt; who presses Ctrl-C
    again while it ends has to wait all the same.
    """
    interruption: KeyboardInterrupt | None = None
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # an interrupted start of a thread loses it: none is begun yet
        future = pool.submit(work)
        while not future.done():
            try:
                wait([future])
            except KeyboardInterrupt as error:
                interruption = error
    if interruption is not None and future.exception() is None:
        raise interruption
    return future.result()
