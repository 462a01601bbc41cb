"""Sequences that are put together and taken apart again: the tensors will do."""

from __future__ import annotations

from itertools import accumulate

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
    index = op.const([at]) if keep else op.const(at)
    return op.Gather(x, index, axis=axis)


@rule(P.SequenceAt(P.SplitToSequence("x", P.vector("sizes"), ..., axis="axis").shared, "at"))
def at_of_parts(op: Tape, x: Value, sizes: tuple[int, ...], axis: int, at: int) -> Replacement:
    """SequenceAt(SplitToSequence(x, sizes), i) -> Slice(x, where that part lies)."""
    starts = [0, *accumulate(sizes)]
    if not -len(sizes) <= at < len(sizes):
        return refuse("there is no part {} of {}", at, sizes)
    at %= len(sizes)
    return op.Slice(x, starts=[starts[at]], ends=[starts[at + 1]], axes=[axis], steps=[1])


SEQUENCES = (
    insert_into_empty
    + insert_at_the_end
    + at_of_construct
    + concat_of_construct
    + at_of_indices
    + at_of_parts
)
