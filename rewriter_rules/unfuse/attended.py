"""Scores, masks and Softmax: what all operators of attention are made of, said once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import scalar, scalar_at, size_at, vector
from vlmpass.rewriter_rules.opset.queries import dims, dtype, rank
from vlmpass.rewriter_rules.opset.table import CannotConvert

__all__ = [
    "Heads",
    "How",
    "attend",
    "by_head",
    "chosen",
    "known_size",
    "last_part",
    "lengths",
    "like",
    "lowest",
    "none_later",
    "repeated",
]

_STANDARD = 23
"""The opset from which the standard has Attention."""

_WHERE_HAS_BFLOAT16 = 16


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values by head: (batch, heads, length, size)."""

    query: ir.Value
    key: ir.Value
    value: ir.Value


@dataclass(frozen=True)
class How:
    """How queries look at keys.

    Attributes:
        scale: What products are multiplied by; 0 means one by the root of the size of a head.
        bias: What is added to them, broadcast to (batch, heads, queries, keys); None for nothing.
        softcap: What they are softly kept below; 0 for no limit.
        sink: What each head's Softmax counts beside the scores, as (1, heads, 1, 1); None for none.
    """

    scale: float = 0.0
    bias: ir.Value | None = None
    softcap: float = 0.0
    sink: ir.Value | None = None


def known_size(value: ir.Value, axis: int, what: str) -> int:
    """Return the size of an axis.

    Args:
        value: A tensor.
        axis: Which one; may count from the back.
        what: What it is, for the reason.

    Raises:
        CannotConvert: It is not known before the model runs.
    """
    rank(value)
    size = (dims(value) or [])[axis]
    if size is None:
        raise CannotConvert(f"{what} is not known before the model runs")
    return size


def by_head(op: Tape, x: ir.Value, heads: int) -> ir.Value:
    """Record (batch, length, heads * size) as (batch, heads, length, size).

    Args:
        op: The tape.
        x: A tensor of three axes.
        heads: How many heads there are.

    Raises:
        CannotConvert: The last size is not known, or heads do not share it.
    """
    width = known_size(x, -1, f"the last size of {x.name}")
    if width % heads:
        raise CannotConvert(
            f"the last size of {x.name} is {width}, which {heads} heads do not share"
        )
    shape = vector(op, [0, 0, heads, width // heads])
    return op.Transpose(op.Reshape(x, shape), perm=[0, 2, 1, 3])


def like(value: ir.Value, heads: ir.Value) -> ir.Value:
    """State that a value is (batch, heads, length, size) as another one is, but for the length.

    Args:
        value: A new value, of a shape that is not seen through slices and indices.
        heads: The other one.
    """
    assert heads.shape is not None
    value.shape = ir.Shape([*heads.shape[:2], None, heads.shape[3]])
    return value


def last_part(op: Tape, x: ir.Value, start: int, stop: int) -> ir.Value:
    """Record a part of the last axis.

    Args:
        op: The tape.
        x: A tensor.
        start: Its first element.
        stop: The one after its last.
    """
    return op.Slice(x, *(vector(op, [each]) for each in (start, stop, -1)))


def lengths(op: Tape, heads: Heads) -> tuple[ir.Value, ir.Value]:
    """Record how many queries and how many keys there are, as scalars."""
    return scalar_at(op, op.Shape(heads.query), 2), scalar_at(op, op.Shape(heads.key), 2)


def none_later(op: Tape, heads: Heads) -> ir.Value:
    """Record which key each query may look at where the last query is at the last key's place."""
    queries, keys = lengths(op, heads)
    column = op.Range(op.Sub(keys, queries), keys, op.const(1))
    row = op.Range(op.const(0), keys, op.const(1))
    return op.LessOrEqual(row, op.Unsqueeze(column, axes=[1]))


def lowest(op: Tape, kind: ir.DataType) -> ir.Value:
    """Record the lowest finite number of a type."""
    least = ml_dtypes.finfo(kind.numpy()).min  # type: ignore[no-untyped-call]
    return scalar(op, float(least), kind, "lowest")


def chosen(op: Tape, condition: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    """Record a choice; of float32 where Where has no bfloat16.

    Args:
        op: The tape.
        condition: Where the one is chosen.
        yes: The one.
        no: The other.
    """
    kind = dtype(no)
    if kind != ir.DataType.BFLOAT16 or op.opsets[""] >= _WHERE_HAS_BFLOAT16:
        return op.Where(condition, yes, no)
    wide = (op.Cast(each, to=ir.DataType.FLOAT) for each in (yes, no))
    return op.Cast(op.Where(condition, *wide), to=kind)


def repeated(op: Tape, x: ir.Value, heads: int) -> ir.Value:
    """Record keys or values with each head as often as query heads share it.

    Args:
        op: The tape.
        x: Of shape (batch, heads of keys, length, size).
        heads: How many heads the queries have.
    """
    had = known_size(x, 1, "the number of heads")
    if had == heads:
        return x
    size = known_size(x, 3, "the size of a head")
    spread = op.Expand(op.Unsqueeze(x, axes=[2]), vector(op, [1, 1, heads // had, 1, 1]))
    return op.Reshape(spread, vector(op, [0, heads, -1, size]))


def attend(
    op: Tape, heads: Heads, how: How, *, scores: bool = False
) -> tuple[ir.Value, ir.Value | None]:
    """Record what queries find, (batch, length, heads * size), and what the Softmax is given.

    Args:
        op: The tape.
        heads: Queries, keys and values.
        how: How queries look at keys.
        scores: Whether the scores that the Softmax is given are wanted.
    """
    count = known_size(heads.query, 1, "the number of heads")
    found, given = _found(op, heads, how, count, scores)
    width = count * known_size(heads.value, 3, "the size of a head")
    return op.Reshape(op.Transpose(found, perm=[0, 2, 1, 3]), vector(op, [0, 0, width])), given


def _found(
    op: Tape, heads: Heads, how: How, count: int, scores: bool
) -> tuple[ir.Value, ir.Value | None]:
    scale = how.scale or 1 / math.sqrt(known_size(heads.query, 3, "the size of a head"))
    if op.opsets[""] >= _STANDARD and how.sink is None and not scores:
        inputs = [heads.query, heads.key, heads.value, _for_each_query(op, heads, how.bias)]
        attributes = {"scale": scale, "softcap": how.softcap or None}
        return op.node("Attention", inputs, attributes)[0], None
    found = _scores(op, heads, how, scale)
    return op.MatMul(_shares(op, found, how.sink), repeated(op, heads.value, count)), found


def _for_each_query(op: Tape, heads: Heads, bias: ir.Value | None) -> ir.Value | None:
    """Record a bias with a row for each query, as ONNX Runtime's kernel of Attention insists."""
    if bias is None or (dims(bias) or [None] * 2)[-2] != 1:
        return bias
    ones = vector(op, [1, 1])
    rows = op.Concat(ones, size_at(op, heads.query, 2), vector(op, [1]), axis=0)
    found = op.Expand(bias, rows)
    assert bias.shape is not None
    assert heads.query.shape is not None
    lead = [*[1] * (4 - len(bias.shape)), *bias.shape[:-2]]
    found.shape = ir.Shape([*lead, heads.query.shape[2], bias.shape[-1]])
    return found


def _scores(op: Tape, heads: Heads, how: How, scale: float) -> ir.Value:
    kind, count = dtype(heads.query), known_size(heads.query, 1, "the number of heads")
    turned = op.Transpose(repeated(op, heads.key, count), perm=[0, 1, 3, 2])
    found = op.MatMul(op.Mul(heads.query, scalar(op, scale, kind, "scale")), turned)
    if how.softcap:
        cap = scalar(op, how.softcap, kind, "softcap")
        found = op.Mul(op.Tanh(op.Div(found, cap)), cap)
    return found if how.bias is None else op.Add(found, how.bias)


def _shares(op: Tape, scores: ir.Value, sink: ir.Value | None) -> ir.Value:
    """Record the Softmax of scores, and of the sink beside them, which then is left out."""
    if sink is None:
        return op.Softmax(scores, axis=-1)
    column = op.Slice(scores, *(vector(op, [each]) for each in (0, 1, -1)))
    beside = op.Add(op.Mul(column, scalar(op, 0, dtype(scores), "zero")), sink)
    whole = op.Softmax(op.Concat(scores, beside, axis=-1), axis=-1)
    return op.Slice(whole, *(vector(op, [each]) for each in (0, -1, -1)))
