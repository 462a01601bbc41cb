"""Rows with one scale and zero point as blocks of equal size, put in order where they lie apart."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.expressions import Rows

__all__ = ["any_block", "arrange", "chunks", "group_rows"]

_READ_BYTES = 4 << 20
_LEAST_BLOCK = 8


def chunks(expression: Expression) -> Iterator[Array]:
    """Yield rows of a matrix, some megabytes at a time."""
    rows, columns = expression.shape
    step = max(1, _READ_BYTES // max(1, columns * expression.width))
    prepared = expression.prepared()
    for first in range(0, rows, step):
        yield prepared.read(((first, min(rows, first + step)), (0, columns)))


def _digests(expression: Expression) -> list[bytes]:
    """Return a digest of every row."""
    if isinstance(expression, Rows):
        digests = _digests(expression.source)
        index = expression.index.read(((0, expression.shape[0]),))
        return [digests[row] for row in index.tolist()]
    return [
        hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
        for rows in chunks(expression)
        for row in rows
    ]


def group_rows(scales: Expression, zeros: Expression) -> list[int]:
    """Return a number for every row; rows of equal scales and zero points have the same."""
    seen: dict[tuple[bytes, bytes], int] = {}
    pairs = zip(_digests(scales), _digests(zeros), strict=True)
    return [seen.setdefault(pair, len(seen)) for pair in pairs]


def any_block(groups: Sequence[int]) -> list[int]:
    """Return blocks worth trying where any size will do, the longest first."""
    counts = set(Counter(groups).values())
    first = next((i for i, group in enumerate(groups) if group != groups[0]), len(groups))
    powers = {1 << i for i in range(3, len(groups).bit_length())}
    return sorted((n for n in counts | powers | {first} if n >= _LEAST_BLOCK), reverse=True)


def _fits(groups: Sequence[int], block: int) -> bool:
    starts = range(0, len(groups), block)
    return all(len(set(groups[start : start + block])) == 1 for start in starts)


def _gathered(groups: Sequence[int], block: int) -> list[int]:
    """Return the rows group by group, one that does not fill its blocks last."""
    counts = Counter(groups)
    return sorted(range(len(groups)), key=lambda i: (counts[groups[i]] % block, groups[i]))


def arrange(groups: Sequence[int], sizes: Sequence[int]) -> tuple[int, list[int] | None] | None:
    """Find blocks, all equal but for a shorter last one.

    Args:
        groups: The group of every row.
        sizes: The blocks that may be, the preferred first.

    Returns:
        The block and the order of rows that makes blocks of them, None if they are in order; None
        if there is no way.
    """
    for block in sizes:
        if _fits(groups, block):
            return block, None
    for block in sizes:
        order = _gathered(groups, block)
        if _fits([groups[row] for row in order], block):
            return block, order
    return None
