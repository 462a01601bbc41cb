"""Arguments from Python, held to the types they are to have and refused by name."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import SupportsFloat, SupportsIndex, TypeVar

from vlmpass.ir_tools.errors import ArgumentError

__all__ = [
    "a_list",
    "callable_or_none",
    "executor_or_none",
    "flag",
    "number",
    "seconds",
    "shown",
    "word",
    "wrong",
]

_T = TypeVar("_T")


def shown(value: object) -> str:
    """Return a value as a message shows it: one that is no number or text by its type alone."""
    kind = type(value).__name__
    if not isinstance(value, (str, bytes, int, float)):
        return f"a {kind}"
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{text} ({kind})"


def wrong(name: str, value: object, wanted: str) -> ArgumentError:
    """Return an error for an argument, with what it takes instead.

    Args:
        name: The argument.
        value: What was given for it.
        wanted: What it takes, such as ``an integer``.
    """
    return ArgumentError(f"{name} takes {wanted}, not {shown(value)}")


def word(name: str, value: object) -> str | None:
    """Return a text, or None.

    Raises:
        ArgumentError: It is something else.
    """
    if value is None or isinstance(value, str):
        return value
    raise wrong(name, value, "a text")


def flag(name: str, value: object) -> bool:
    """Return a truth value; numpy's will do.

    Raises:
        ArgumentError: It is something else.
    """
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise wrong(name, value, "True or False")


def number(name: str, value: object, least: int | None) -> int | None:
    """Return an integer as Python's, or None; numpy's will do.

    Args:
        name: The argument, for messages.
        value: What was given for it.
        least: The least that it takes; None for any.

    Raises:
        ArgumentError: It is something else, or too small.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise wrong(name, value, "an integer")
    try:
        found = operator.index(value)
    except TypeError:  # an array of several
        raise wrong(name, value, "an integer") from None
    if least is not None and found < least:
        raise wrong(name, value, f"an integer of {least} or more")
    return found


def seconds(name: str, value: object) -> float | None:
    """Return a number of 0 or more, or None; numpy's will do.

    Raises:
        ArgumentError: It is something else.
    """
    if value is None:
        return None
    if isinstance(value, (bool, str)) or not isinstance(value, SupportsFloat):
        raise wrong(name, value, "a number")
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong(name, value, "a number") from None
    if math.isnan(found) or found < 0:
        raise wrong(name, value, "a number of 0 or more")
    return found


def callable_or_none(name: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        ArgumentError: It is neither None nor callable.
    """
    if value is not None and not callable(value):
        raise wrong(name, value, "a function")


def executor_or_none(name: str, value: object) -> None:
    """Refuse what is neither an executor nor None.

    Raises:
        ArgumentError: It is something else.
    """
    if value is not None and not isinstance(value, Executor):
        raise wrong(name, value, "a concurrent.futures.Executor")


def a_list(name: str, value: object, kind: type[_T]) -> tuple[_T, ...]:
    """Return the items of a list or tuple.

    Args:
        name: The argument, for messages.
        value: What was given for it; a str is no list.
        kind: Class of the items.

    Raises:
        ArgumentError: It is none, or one of them is of another type.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise wrong(name, value, f"a list of {name}")
    for each in value:
        if not isinstance(each, kind):
            raise wrong(f"a list of {name}", each, f"{kind.__name__}s")
    return tuple(value)
