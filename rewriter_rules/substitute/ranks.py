"""Axes taken apart, turned and put together again, as windows of images are, at lower ranks.

Axes of size 1 need no place, and neighbours that stay neighbours are one axis; where more than five
are left, they go to their places one after the other, each time over four axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.opset.build import vector
from vlmpass.rewriter_rules.opset.queries import dims, known_or_none

__all__ = ["RANKS"]

_MOST = 5
"""No runtime that is known to count axes takes more."""

Sizes = Sequence[int | None]


def _merged(sizes: Sizes, perm: Sequence[int]) -> tuple[list[int | None], list[int]]:
    """Return the sizes of groups of axes that are turned as one, as they come in, and how.

    Args:
        sizes: Of the axes; None for one that is open.
        perm: The axis that each place of the result has.
    """
    order = [axis for axis in perm if sizes[axis] != 1]
    place = {axis: at for at, axis in enumerate(sorted(order))}
    groups: list[list[int]] = [order[:1]]
    for before, axis in pairwise(order):
        if place[axis] == place[before] + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    came = sorted(groups)
    return [_product([sizes[each] for each in group]) for group in came], list(
        map(came.index, groups)
    )


def _product(sizes: Sizes) -> int | None:
    return None if None in sizes else prod(size for size in sizes if size is not None)


def _seen(op: Tape, x: ir.Value, sizes: Sizes) -> ir.Value:
    return op.Reshape(x, vector(op, [-1 if size is None else size for size in sizes]))


def _turned(op: Tape, x: ir.Value, sizes: list[int | None], perm: list[int]) -> ir.Value:
    """Record x, seen in some sizes, turned: at once, or axis by axis where there are many."""
    if perm == sorted(perm):
        return x
    if len(perm) <= _MOST:
        return op.Transpose(_seen(op, x, sizes), perm=perm)
    order = list(range(len(perm)))
    for at, axis in enumerate(perm):
        here = order.index(axis)
        if here == at:
            continue
        cuts = (order[:at], order[at:here], [axis], order[here + 1 :])
        four = [_product([sizes[each] for each in cut]) for cut in cuts]
        x = op.Transpose(_seen(op, x, four), perm=(0, 2, 1, 3))
        order = [each for cut in (cuts[0], cuts[2], cuts[1], cuts[3]) for each in cut]
    return x


@rule(P.Reshape(P.Transpose(P.Reshape("x", P.any).named("apart"), perm="perm"), "sizes"))
def windows_at_lower_rank(
    op: Tape, x: ir.Value, apart: ir.Value, perm: tuple[int, ...], sizes: ir.Value
) -> Replacement:
    """Reshape(Transpose(Reshape(x))) of more than 5 axes -> the same, of 5 at most."""
    known, last = dims(apart), known_or_none(sizes)
    if known is None or len(known) <= _MOST or known.count(None) > 1 or 0 in known:
        return refuse("{} is not known to have more than 5 axes, of which one is open", apart)
    if last is None or 0 in last:
        return refuse("{} is no constant that gives every size", sizes)
    merged, places = _merged(known, [axis % len(known) for axis in perm])
    return op.Reshape(_turned(op, x, merged, places), sizes)


RANKS = RuleSet((windows_at_lower_rank,))
