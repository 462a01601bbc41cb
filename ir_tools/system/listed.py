"""Names in a sentence: the first few, and how many more there are; the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["listed", "meant"]


def listed(names: Iterable[object], most: int = 8) -> str:
    """Return names with commas, such as ``a, b and 19,998 more``.

    Args:
        names: In the order in which they are told.
        most: How many are.
    """
    found = [str(name) for name in names]
    if len(found) <= most + 1:  # "and 1 more" would be no shorter
        return ", ".join(found)
    return f"{', '.join(found[:most])} and {len(found) - most:,} more"


def meant(word: str, known: Iterable[str], most: int = 8) -> str:
    """Return a remedy for an unknown word: the nearest one that is known, or those that there are.

    Args:
        word: What was written.
        known: Words that exist.
        most: How many of them are told where none is near.
    """
    choices = list(known)
    close = difflib.get_close_matches(word, choices, 1, 0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose one of {listed(choices, most)}" if choices else ""
