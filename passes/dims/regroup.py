"""How a Reshape at traced sizes splits and merges axes, carried over to sizes that vary.

The axes before and after are lined up in groups of equal products. A group's sizes then follow from
the group before it, so that elements that belong to one index of a varying axis stay together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vlmpass.ir_tools.shapes.algebra import Dim, product

__all__ = ["AmbiguousError", "Factor", "regroup", "size_of"]

Factor = tuple[Dim, int]
"""A size that varies and what it was when the model was traced."""


class AmbiguousError(Exception):
    """It cannot be told which of the sizes after a Reshape came from a varying axis."""


def regroup(
    before: Sequence[Factor], after: Sequence[int], merged: Mapping[Dim, Sequence[Factor]]
) -> list[tuple[Factor, ...]]:
    """Return for every axis after a Reshape the factors it is the product of.

    Args:
        before: The axes of its input.
        after: The traced sizes of its output; none is 0.
        merged: The factors of sizes that earlier Reshapes merged, outermost first.

    Raises:
        AmbiguousError: More than one way of varying fits the traced sizes.
    """
    flat = [factor for each in before for factor in merged.get(each[0], (each,))]
    groups: list[tuple[Factor, ...]] = []
    start = 0
    for left, right in _groups([traced for _, traced in flat], after):
        factors = tuple(flat[index] for index in left)
        sizes = [after[start + offset] for offset in range(len(right))]
        start += len(right)
        groups.extend(_distribute(factors, sizes))
    return groups


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Line up two lists of sizes with the same product; ones are lined up as far as they go."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [], []
        while i < len(before) and before[i] == 1:
            left.append(i)
            i += 1
        while j < len(after) and after[j] == 1:
            right.append(j)
            j += 1
        if left or right:
            groups.append((left, right))
        left, right = [], []
        a = b = 1
        while (a != b or not left) and (i < len(before) or j < len(after)):
            if j >= len(after) or (i < len(before) and a <= b):
                left.append(i)
                a *= before[i]
                i += 1
            else:
                right.append(j)
                b *= after[j]
                j += 1
        if left or right:
            groups.append((left, right))
    return _merge_orphans(groups)


def _merge_orphans(
    groups: list[tuple[list[int], list[int]]],
) -> list[tuple[list[int], list[int]]]:
    """Give ones that have no partner to the group after them, else to the one before."""
    merged: list[tuple[list[int], list[int]]] = []
    carried: list[int] = []
    for left, right in groups:
        if left and not right:
            carried += left
            continue
        merged.append((carried + left, right))
        carried = []
    if carried and merged:
        merged[-1] = (merged[-1][0] + carried, merged[-1][1])
    return merged


def _distribute(factors: tuple[Factor, ...], sizes: Sequence[int]) -> list[tuple[Factor, ...]]:
    """Give the factors of one group to the axes of that group."""
    varying = [factor for factor in factors if not isinstance(factor[0], int)]
    if not varying:
        return [((size, size),) for size in sizes]
    if len(sizes) == 1:
        return [factors]
    if len(sizes) == len(factors) and all(
        size == traced for size, (_, traced) in zip(sizes, factors, strict=True)
    ):
        return [(factor,) for factor in factors]
    large = [index for index, size in enumerate(sizes) if size != 1]
    if len(large) == 1 and math.prod(traced for _, traced in factors) != 1:
        alone = [((1, 1),)] * len(sizes)
        return [factors if index == large[0] else one for index, one in enumerate(alone)]
    raise AmbiguousError


def size_of(factors: Sequence[Factor]) -> Dim:
    """Return the product of the varying sizes."""
    return product(dim for dim, _ in factors)
