"""What can be known about one value: sizes of its axes, and its elements."""

from __future__ import annotations

from typing import Final, NamedTuple

from vlmpass.ir_tools.shapes.algebra import Dim

__all__ = ["MOST_ELEMENTS", "UNKNOWN", "Known"]

MOST_ELEMENTS: Final = 64
"""Of how many elements a tensor is followed element by element."""


class Known(NamedTuple):
    """What is proven about one value.

    Attributes:
        shape: The size of every axis, None if the rank is not known.
        elements: All elements in row-major order, for small integers and bools (0 and 1).
    """

    shape: tuple[Dim, ...] | None = None
    elements: tuple[Dim, ...] | None = None

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape if every axis has a known size."""
        if self.shape is None:
            return None
        sizes = tuple(dim for dim in self.shape if isinstance(dim, int))
        return sizes if len(sizes) == len(self.shape) else None

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The elements if every one is a known number."""
        if self.elements is None:
            return None
        numbers = tuple(item for item in self.elements if isinstance(item, int))
        return numbers if len(numbers) == len(self.elements) else None


UNKNOWN: Final = Known()
