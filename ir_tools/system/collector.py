"""Work that makes many objects and no garbage, without the cyclic collector in its way.

The collector walks all objects alive each time their number has grown by a quarter, which makes
work over a large graph slower than linear.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["collect_new", "collecting", "not_collecting", "without_collector"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_WAS_ON: list[bool] = []
"""How the collector was before each of those that keep it off now, the outermost first."""


@contextmanager
def not_collecting() -> Iterator[None]:
    """Keep the collector off meanwhile, if it was on."""
    _WAS_ON.append(gc.isenabled())
    gc.disable()
    try:
        yield
    finally:
        if _WAS_ON.pop():
            gc.enable()


@contextmanager
def collecting() -> Iterator[None]:
    """Let the collector run meanwhile after all, where garbage is made; if it was on at first."""
    enabled = gc.isenabled()
    if _WAS_ON and _WAS_ON[0]:
        gc.enable()
    try:
        yield
    finally:
        if not enabled:
            gc.disable()


def collect_new() -> None:
    """Free the cycles among what was made since the last call, at the cost of that alone."""
    gc.collect(0)


def without_collector(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function: the collector is off while it runs, if it was on."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with not_collecting():
            return function(*args, **kwargs)

    return run
