"""Masks as ONNX Runtime's attention takes them, said as what is added to the scores."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import part, scalar, size_at, vector
from vlmpass.rewriter_rules.opset.queries import dims, dtype, rank
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.unfuse.attended import Heads, chosen, lengths, lowest, none_later

__all__ = ["MASKED", "added", "same_length"]

MASKED = -10000.0
"""What ONNX Runtime adds to the score of a key that is masked out, unless a node says otherwise."""


def same_length(one: ir.Value, other: ir.Value) -> None:
    """Make sure that two tensors (batch, heads, length, size) are of one length.

    Raises:
        CannotConvert: Nothing says so.
    """
    if not _same(one, 2, other, 2):
        raise CannotConvert(
            "its queries and keys are not known to be as many, which it is causal for"
        )


def added(
    op: Tape,
    heads: Heads,
    mask: ir.Value | None,
    bias: ir.Value | None,
    *,
    causal: bool,
    masked: float,
    ends: bool = False,
    placeholder: bool = False,
) -> ir.Value | None:
    """Record what is added to the scores: what masks out, and a bias.

    Args:
        op: The tape.
        heads: Queries, and keys with those of the past.
        mask: One of the masks that ONNX Runtime has, of one to three axes.
        bias: What is added beside it.
        causal: Whether queries see none of the later keys.
        masked: What is added to the score of a key that is masked out.
        ends: Whether the mask is the number of keys of each of the batch, whatever its size.
        placeholder: Whether a mask of two axes that is for one key stands for none.
    """
    kind = dtype(heads.query)
    total = None
    if mask is not None and placeholder and (dims(mask) or [])[1:] == [1]:
        mask = None
    if mask is not None:
        zero, filler = scalar(op, 0, kind, "zero"), scalar(op, masked, kind, "masked")
        kept = _before(op, heads, mask) if ends else _kept(op, heads, mask, placeholder)
        total = chosen(op, kept, zero, filler)
    if causal:
        visible = scalar(op, 0, kind, "zero") if total is None else total
        total = chosen(op, none_later(op, heads), visible, lowest(op, kind))
    if total is None or bias is None:
        return bias if total is None else total
    return op.Add(total, bias)


def _same(one: ir.Value, axis: int, other: ir.Value, place: int) -> bool:
    """Whether an axis of one value is known to be as long as a place of another."""
    if one.shape is None or other.shape is None:
        return False
    return same_size(one.shape[axis], other.shape[place])


def _kept(op: Tape, heads: Heads, mask: ir.Value, placeholder: bool) -> ir.Value:
    """Record which keys stay, broadcast to (batch, heads, queries, keys)."""
    if rank(mask) == 1:
        return _between(op, heads, mask)
    if rank(mask) not in (2, 3):
        raise CannotConvert(f"its mask has {rank(mask)} axes, which ONNX Runtime's kernel has not")
    _suits(mask, -1, heads.key, "keys")
    found = op.Greater(mask, scalar(op, 0, dtype(mask), "zero"))
    if rank(mask) == 3:
        _suits(mask, -2, heads.query, "queries")
        return op.Unsqueeze(found, axes=[1])
    found = op.Unsqueeze(found, axes=[1, 2])
    known = _same(mask, 1, heads.key, 2) or (dims(mask) or [None])[-1] is not None
    return _or_all(op, heads, mask, found) if placeholder and not known else found


def _suits(mask: ir.Value, axis: int, heads: ir.Value, what: str) -> None:
    """Make sure that a mask is for as many as there are, where both numbers are known.

    Raises:
        CannotConvert: It is for others, such as the new keys alone, which no kernel takes.
    """
    given, wanted = (dims(mask) or [])[axis], (dims(heads) or [None] * 3)[2]
    if given is not None and wanted is not None and given != wanted:
        raise CannotConvert(f"its mask is for {given} {what}, of which there are {wanted}")


def _or_all(op: Tape, heads: Heads, mask: ir.Value, kept: ir.Value) -> ir.Value:
    """Record which keys stay, all of them where the mask turns out to be for one alone."""
    alone = op.Equal(size_at(op, mask, 1), vector(op, [1]))
    shape = op.Concat(vector(op, [1, 1, 1]), size_at(op, heads.key, 2), axis=0)
    found = op.Expand(op.Or(kept, alone), shape)
    assert mask.shape is not None
    found.shape = ir.Shape([mask.shape[0], 1, 1, None])
    return found


def _between(op: Tape, heads: Heads, mask: ir.Value) -> ir.Value:
    """Record which keys are before the ends that a mask gives, and not before its starts."""
    count, sizes = (dims(heads.query) or [None])[0], dims(mask)
    if _same(mask, 0, heads.query, 0):
        return _before(op, heads, mask)
    if count is None or sizes == [None]:
        raise CannotConvert("what its mask of one axis holds depends on the size of the batch")
    found = _before(op, heads, part(op, mask, 0, count))
    if sizes == [2 * count]:
        starts = op.Reshape(part(op, mask, count, 2 * count), vector(op, [-1, 1, 1, 1]))
        return op.And(found, op.Not(op.Less(_places(op, heads, mask), starts)))
    if sizes == [3 * count + 2]:
        return found
    raise CannotConvert(f"its mask has {sizes} elements for a batch of {count}")


def _before(op: Tape, heads: Heads, ends: ir.Value) -> ir.Value:
    return op.Less(_places(op, heads, ends), op.Reshape(ends, vector(op, [-1, 1, 1, 1])))


def _places(op: Tape, heads: Heads, like: ir.Value) -> ir.Value:
    """Record the places of the keys, as numbers of the type that a mask has."""
    keys = lengths(op, heads)[1]
    return op.Cast(op.Range(op.const(0), keys, op.const(1)), to=dtype(like))
