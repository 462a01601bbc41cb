"""Sequences that are put together and taken apart again: the tensors will do."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from onnx_ir import Value

from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule

__all__ = ["SEQUENCES"]

BUILT = P.SequenceConstruct("xs*").shared


@rule(P.SequenceInsert(P.SequenceEmpty(...).shared, "x"))
def insert_into_empty(op: Tape, x: Value) -> Replacement:
    """SequenceInsert(SequenceEmpty(), x) -> SequenceConstruct(x)."""
    return op.SequenceConstruct(x)


@rule(P.SequenceInsert(BUILT, "x"))
def insert_at_the_end(op: Tape, xs: tuple[Value, ...], x: Value) -> Replacement:
    """SequenceInsert(SequenceConstruct(a, b), x) -> SequenceConstruct(a, b, x)."""
    return op.SequenceConstruct(*xs, x)


@rule(P.SequenceAt(BUILT, "at"))
def at_of_construct(op: Tape, xs: tuple[Value, ...], at: int) -> Replacement:
    """SequenceAt(SequenceConstruct(a, b), 1) -> b."""
    if not -len(xs) <= at < len(xs):
        return refuse("there is no element {}", at)
    return xs[at]


@rule(P.ConcatFromSequence(BUILT, axis="axis", new_axis="new"))
def concat_of_construct(op: Tape, xs: tuple[Value, ...], axis: int, new: int) -> Replacement:
    """ConcatFromSequence(SequenceConstruct(a, b)) -> Concat(a, b), along a new axis or not."""
    parts = [op.Unsqueeze(x, axes=[axis]) for x in xs] if new else xs
    return op.Concat(*parts, axis=axis)


@rule(P.SequenceAt(P.SplitToSequence("x", axis="axis", keepdims="keep").shared, "at"))
def at_of_indices(op: Tape, x: Value, axis: int, keep: int, at: int) -> Replacement:
    """SequenceAt(SplitToSequence(x), i) -> Gather(x, i), of single indices."""
    if keep not in (0, 1):
        return refuse(f"keepdims is {keep}, and neither 0 nor 1")
    index = op.const([at]) if keep else op.const(at)
    return op.Gather(x, index, axis=axis)


def _part(parts: np.ndarray, at: int) -> tuple[int, int] | None:
    """Return where a part begins and ends, of equal parts of one size or of parts of given ones."""
    if parts.ndim == 0:
        size = int(parts)
        return (at * size, (at + 1) * size) if at >= 0 and size > 0 else None
    bounds = [0, *accumulate(parts.tolist())]
    return (
        (bounds[at % parts.size], bounds[at % parts.size + 1])
        if -parts.size <= at < parts.size
        else None
    )


@rule(P.SequenceAt(P.SplitToSequence("x", "parts", ..., axis="axis").shared, "at"))
def at_of_parts(op: Tape, x: Value, parts: np.ndarray, axis: int, at: int) -> Replacement:
    """SequenceAt(SplitToSequence(x, sizes), i) -> Slice(x, where that part lies)."""
    found = _part(parts, at)
    if found is None:
        return refuse("where part {} lies is not known before {} is split", at, x)
    start, end = found
    return op.Slice(x, starts=[start], ends=[end], axes=[axis], steps=[1])


SEQUENCES = (
    insert_into_empty
    + insert_at_the_end
    + at_of_construct
    + concat_of_construct
    + at_of_indices
    + at_of_parts
)
