"""Names in a sentence: the first few, and how many more there are."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["listed"]


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
