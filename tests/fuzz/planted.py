"""Defects to be planted into the library, so that tests see each generator find them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from vlmpass.ir_tools.rewrite import Rule
from vlmpass.ir_tools.rewrite.rule import Declined
from vlmpass.rewriter_rules.opset import conversion as convert
from vlmpass.rewriter_rules.opset import table


@dataclass(frozen=True)
class Plant:
    """A defect, and where it shows.

    Attributes:
        name: What is wrong.
        apply: Puts it in place, to be undone by the patch.
        only: Names of the operators or rules around which it shows.
        texts: Pipelines through which it shows.
        count: How many models are enough.
    """

    name: str
    apply: Callable[[pytest.MonkeyPatch], None]
    only: str
    texts: tuple[str, ...]
    count: int = 40

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def replaced(place: object, name: str, new: object) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what puts something else in the place of a function or method."""
    return lambda patch: patch.setattr(place, name, new)


def wrapped(
    place: object, name: str, around: Callable[..., Any]
) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what calls `around(old, ...)` in the place of `old(...)`."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        old = getattr(place, name)
        patch.setattr(place, name, lambda *given, **named: around(old, *given, **named))

    return apply


def both(*parts: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what puts several things in place."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        for each in parts:
            each(patch)

    return apply


def idle_step(operator: str, source: int, target: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets an adapter of the opset table do nothing."""
    step = (operator, source, target)

    def apply(patch: pytest.MonkeyPatch) -> None:
        entry = table.entries()[step]
        idle = dataclasses.replace(entry, run=lambda op, node: table.UNCHANGED)
        patch.setitem(table._TABLE, step, idle)
        convert.route.cache_clear()

    return apply


@contextlib.contextmanager
def function_of(rule: Rule, new: Callable[..., Any]) -> Iterator[None]:
    """Let a rule, which is frozen, do something else for a while."""
    old = rule.function
    object.__setattr__(rule, "function", new)
    try:
        yield
    finally:
        object.__setattr__(rule, "function", old)


def never_refusing(rule: Rule) -> Callable[..., Any]:
    """Return a rule's function with all its guards gone: what it looked at stands for the root."""
    old = rule.function

    def function(op: Any, **captured: Any) -> Any:
        result = old(op, **captured)
        if not isinstance(result, Declined):
            return result
        values = [each for each in captured.values() if hasattr(each, "producer")]
        return values[0] if values else result

    return function
