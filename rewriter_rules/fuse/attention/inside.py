"""Rows as GroupQueryAttention is given them: of all heads, and of all three in one or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_ir import Value

from vlmpass.ir_tools.graph.read_attributes import ints_of
from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import Tape
from vlmpass.rewriter_rules.fuse.attention.steps_back import elements, made_by

__all__ = ["BY_HEAD", "Grouped", "flat", "packed"]

BY_HEAD = (0, 2, 1, 3)
"""How [batch, length, heads, size] becomes [batch, heads, length, size], and back."""


@dataclass(frozen=True)
class Grouped:
    """What the operator is given, each [batch, heads, length, size].

    Attributes:
        query: Queries.
        key: New keys.
        value: New values.
        past_key: Keys of before; None where there are none.
        past_value: Values of before.
        present: All keys.
    """

    query: Value
    key: Value
    value: Value
    past_key: Value | None
    past_value: Value | None
    present: Value


def flat(op: Tape, x: Value) -> Value:
    """Return [batch, length, heads * size] for [batch, heads, length, size], sizes known.

    Args:
        op: Records it, where it is not there.
        x: Heads.
    """
    assert x.shape is not None
    heads, size = x.shape[1], x.shape[3]
    assert isinstance(heads, int)
    assert isinstance(size, int)
    rows = _whole_rows(x, heads * size)
    turned = op.Transpose(x, perm=list(BY_HEAD)) if rows is None else None
    return rows or op.Reshape(turned, op.const([0, 0, heads * size]))


def _whole_rows(x: Value, width: int) -> Value | None:
    """Return the rows that heads were made of, as they were; None where they were not."""
    turn = made_by(x, "Transpose")
    split = None if turn is None else made_by(turn.inputs[0], "Reshape")
    rows = None if split is None else split.inputs[0]
    if turn is None or tuple(ints_of(turn, "perm", ())) != BY_HEAD or rows is None:
        return None
    if rows.shape is None or x.shape is None or len(rows.shape) != 3 or rows.shape[2] != width:
        return None
    same = same_size(rows.shape[0], x.shape[0]) and same_size(rows.shape[1], x.shape[2])
    return rows if same else None


def packed(rows: Sequence[Value]) -> list[Value | None]:
    """Return queries, keys and values as the one value that they lie in side by side, if they do.

    Args:
        rows: All three, [batch, length, heads * size] each.
    """
    found = [elements(each) for each in rows]
    source, joined = found[0][0], [at for _, row in found for at in row]
    whole = source.shape[-1] if source.shape else None
    if any(each is not source for each, _ in found) or joined != list(range(len(joined))):
        return [*rows]
    return [source, None, None] if len(joined) == whole else [*rows]
