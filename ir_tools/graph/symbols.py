"""Sizes that nobody named, told apart: which of them are proven to be one and the same.

A symbol lives in the shapes of the IR and never in a file, so that what is written has no names
that its author did not give.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["ProvenDim", "new_symbol", "refined", "same_size", "without_symbols"]

_NUMBERS = itertools.count()


def new_symbol() -> int:
    """Return a symbol that no size has yet."""
    return next(_NUMBERS)


class ProvenDim(ir.SymbolicDim):
    """A size that is no number, and that is proven equal to all others with the same symbol.

    Args:
        name: Its name in the file, None if it has none.
        symbol: From `new_symbol`.
    """

    __slots__ = ("symbol",)

    def __init__(self, name: str | None, symbol: int) -> None:
        super().__init__(name)
        self.symbol = symbol


def same_size(one: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    """Whether two sizes are known to be equal: as numbers, by their names, or by proof."""
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    if isinstance(one, ProvenDim) and isinstance(other, ProvenDim) and one.symbol == other.symbol:
        return True
    return one.value is not None and one.value == other.value


def without_symbols(shape: Iterable[int | ir.SymbolicDim]) -> list[int | ir.SymbolicDim]:
    """Return sizes with their names alone, for what is said to be equal but was not proven."""
    return [ir.SymbolicDim(dim.value) if isinstance(dim, ProvenDim) else dim for dim in shape]


def refined(old: ir.Shape | None, new: ir.Shape | None) -> ir.Shape | None:
    """Return what two shapes of one value say together; the first is believed where both do."""
    if old is None or new is None or len(old) != len(new):
        return old if new is None else new
    return ir.Shape(
        [
            was if isinstance(was, (int, ProvenDim)) and not isinstance(now, int) else now
            for was, now in zip(old, new, strict=True)
        ]
    )
