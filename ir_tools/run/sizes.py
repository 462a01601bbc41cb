"""Sizes that a user gives for generated inputs, by symbol or as the shape of an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.dims import Dimensions
from vlmpass.ir_tools.system.arguments import wrong
from vlmpass.ir_tools.system.listed import listed

__all__ = ["Shapes", "refuse_both", "sizes_given"]

Shapes: TypeAlias = "Mapping[str, int | Sequence[int]]"


def refuse_both(inputs: object, shapes: object) -> None:
    """Refuse sizes of inputs that are not generated.

    Raises:
        VerifyError: Both are given.
    """
    if inputs is not None and shapes is not None:
        raise VerifyError("inputs are given, and shapes too", remedy="leave one of them out")


def sizes_given(given: object, dimensions: Dimensions, pinned: Mapping[str, int]) -> dict[str, int]:
    """Return sizes by symbol.

    Args:
        given: A size by the name of a dimension, or a shape by that of an input; None for none.
        dimensions: Of the reference.
        pinned: What the judged model fixes.

    Raises:
        ArgumentError: It is something else.
        VerifyError: The model has no such dimension or input, or fixes another size.
    """
    if given is None:
        return dict(pinned)
    if not isinstance(given, Mapping):
        raise wrong("shapes", given, "sizes by dimension, or shapes by input")
    found: dict[str, int] = {}
    for name, size in given.items():
        if name in dimensions.shapes and isinstance(size, Sequence):
            made = _of_input(str(name), [_checked(name, each) for each in size], dimensions)
        else:
            made = {str(name): _checked(name, size)}
        for symbol, number in made.items():
            if symbol not in dimensions.names:
                raise _unknown(symbol, dimensions)
            if found.setdefault(symbol, number) != number:
                raise VerifyError(f"'{symbol}' is given as {found[symbol]} and as {number}")
            if pinned.get(symbol, number) != number:
                raise VerifyError(f"'{symbol}' is given as {number}, and B has {pinned[symbol]}")
    return {**pinned, **found}


def _checked(name: object, size: object) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise wrong(f"shapes['{name}']", size, "sizes from 0 on")
    return size


def _of_input(name: str, shape: Sequence[int], dimensions: Dimensions) -> dict[str, int]:
    declared = dimensions.shapes[name]
    told = "x".join(map(str, declared))
    if len(declared) != len(shape):
        raise VerifyError(f"input '{name}' is {told}, of {len(declared)} axes, not {len(shape)}")
    found: dict[str, int] = {}
    for dim, size in zip(declared, shape, strict=True):
        if isinstance(dim, int):
            if dim != size:
                raise VerifyError(f"input '{name}' is {told}, and {size} is given for {dim}")
        elif dim in dimensions.names:
            found[dim] = size
        else:
            raise VerifyError(
                f"input '{name}' is {told}, and '{dim}' is computed of others",
                remedy="give the sizes that it is computed of",
            )
    return found


def _unknown(name: str, dimensions: Dimensions) -> VerifyError:
    has = f"it has {listed(dimensions.names)}" if dimensions.names else "all its sizes are fixed"
    return VerifyError(f"the reference has no dimension '{name}': {has}")
