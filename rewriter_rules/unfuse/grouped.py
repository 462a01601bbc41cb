"""GroupQueryAttention: rotary embedding, a cache filled from its start, and causal attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import arange, scalar, scalar_at, size_at, vector
from vlmpass.rewriter_rules.opset.queries import (
    dtype,
    integer,
    operand,
    optional_input,
    real,
    used,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.attended import (
    Heads,
    How,
    attend,
    by_head,
    chosen,
    known_size,
    last_part,
    like,
    lowest,
)
from vlmpass.rewriter_rules.unfuse.quantised_caches import stored
from vlmpass.rewriter_rules.unfuse.turned import turned
from vlmpass.rewriter_rules.unfuse.unfused import FLOATS, floats, unfused

__all__ = ["GROUPED"]

_INT = ir.DataType.INT64


@dataclass(frozen=True)
class _Steps:
    """Where the tokens at hand stand.

    Attributes:
        starts: How many tokens each of the batch has seen before: (batch, 1, 1, 1).
        new: How many are new, a scalar.
        total: How long the cache is afterwards, a scalar.
    """

    starts: ir.Value
    new: ir.Value
    total: ir.Value


@unfused("GroupQueryAttention", outputs=4)
def unfuse_group_query_attention(op: Tape, node: ir.Node) -> Outputs:
    """GroupQueryAttention(q, k, v, pk, pv, n) -> Softmax(q @ [pk, k]^T) @ [pv, v], causal."""
    _understood(node)
    heads = _turned(op, node, _heads(op, node))
    steps = _steps(op, node, heads)
    seen, caches = _joined(op, node, heads, steps)
    return [_looked_up(op, node, seen, steps), *caches, None]


def _joined(
    op: Tape, node: ir.Node, heads: Heads, steps: _Steps
) -> tuple[Heads, Sequence[ir.Value]]:
    """Record keys and values of before and now, as queries look at them and as they are kept."""
    past, new = (optional_input(node, 3), optional_input(node, 4)), (heads.key, heads.value)
    how = stored(op, node, known_size(heads.key, 3, "the size of a head"))
    if past[0] is None or past[1] is None:
        return heads, new
    if how is None:
        key, value = _filled(op, node, [(past[0], new[0]), (past[1], new[1])], steps)
        return Heads(heads.query, key, value), (key, value)
    kind = dtype(heads.query)
    pairs = [
        (each.before(op, old), each.rounded(op, x))
        for each, old, x in zip(how, past, new, strict=True)
        if old is not None
    ]
    held = [*zip(how, _filled(op, node, pairs, steps), strict=True)]
    key, value = (each.numbers(op, x, kind) for each, x in held)
    return Heads(heads.query, key, value), [each.given_out(op, x) for each, x in held]


def _understood(node: ir.Node) -> None:
    """Refuse what has no equal, or none that is proven.

    Raises:
        CannotConvert: The node has it.
    """
    caches = [optional_input(node, index) for index in (3, 4)]
    if any(each is not None and each.dtype in FLOATS for each in caches):
        floats(node, 0, 3, 4)
    counted, causal = optional_input(node, 16), bool(integer(node, "causal", 1))
    if counted is not None and not (causal and optional_input(node, 3)):
        raise CannotConvert("its padded chunks are not causal, or have no past to be added to")
    if integer(node, "sliding_window_cache"):
        raise CannotConvert("its cache holds a window of tokens and drops what leaves it")
    if used(node, 3):
        raise CannotConvert("its scores are an output")
    floats(node, 0, 1, 2, 7, 8, 10, 11, 14, 15)


def _looked_up(op: Tape, node: ir.Node, heads: Heads, steps: _Steps) -> ir.Value:
    """Record what queries find among the keys that are not later."""
    bias, given = _visible(op, node, heads, steps), optional_input(node, 10)
    total = bias if given is None else op.Add(_to_the_end(op, node, given, steps), bias)
    how = How(real(node, "scale"), total, real(node, "softcap"), _sink(op, node))
    return attend(op, heads, how)[0]


def _to_the_end(op: Tape, node: ir.Node, bias: ir.Value, steps: _Steps) -> ir.Value:
    """Record a bias for every key of the cache, those that nothing is said of included."""
    if optional_input(node, 3) is None:
        return bias
    missing = op.Sub(op.Reshape(steps.total, vector(op, [1])), size_at(op, bias, 3))
    return op.Pad(bias, op.Concat(vector(op, [0] * 7), missing, axis=0))


def _sink(op: Tape, node: ir.Node) -> ir.Value | None:
    """Record what each head's Softmax counts beside its scores."""
    given, heads = optional_input(node, 11), integer(node, "num_heads")
    if given is not None:
        return op.Reshape(given, vector(op, [1, heads, 1, 1]))
    smooth = integer(node, "smooth_softmax", -1) == 1
    return scalar(op, 0, dtype(operand(node, 0)), "sink") if smooth else None


def _heads(op: Tape, node: ir.Node) -> Heads:
    """Record queries, keys and values by head, packed or not, normalised if they are to be."""
    queries, keys = integer(node, "num_heads"), integer(node, "kv_num_heads")
    query, key, value = (optional_input(node, index) for index in range(3))
    assert query is not None
    if key is None or value is None:
        size = known_size(query, -1, "the width of the query") // (queries + 2 * keys)
        ends = [0, queries * size, (queries + keys) * size, (queries + 2 * keys) * size]
        parts = [last_part(op, query, *ends[index : index + 2]) for index in range(3)]
    else:
        parts = [query, key, value]
    counts = (queries, keys, keys)
    found = [by_head(op, x, count) for x, count in zip(parts, counts, strict=True)]
    for index, name in enumerate("qk"):
        weight = optional_input(node, 14 + index)
        if weight is not None:
            found[index] = _normalized(op, node, found[index], weight, name)
    return Heads(*found)


def _normalized(op: Tape, node: ir.Node, x: ir.Value, weight: ir.Value, name: str) -> ir.Value:
    """Record the RMS norm of every head; only kernels for GPUs have it in one."""
    common = real(node, "qk_norm_epsilon", 1e-6)
    epsilon = real(node, f"{name}_norm_epsilon", common)
    return op.SimplifiedLayerNormalization(x, weight, axis=-1, epsilon=epsilon)


def _steps(op: Tape, node: ir.Node, heads: Heads) -> _Steps:
    new = scalar_at(op, op.Shape(heads.query), 2)
    if optional_input(node, 3) is None:
        return _Steps(vector(op, [0]), new, new)
    counted = optional_input(node, 16)
    given = new if counted is None else _by_batch(op, counted)
    starts = op.Max(op.Sub(_ends(op, node), given), op.const(0))
    total = op.Cast(op.Squeeze(op.Reshape(operand(node, 6), vector(op, [1]))), to=_INT)
    room = scalar_at(op, op.Shape(operand(node, 3)), 2)
    return _Steps(starts, new, op.Max(total, room))


def _ends(op: Tape, node: ir.Node) -> ir.Value:
    """Record how many tokens each of the batch has then, the new ones included."""
    return op.Add(_by_batch(op, operand(node, 5)), op.const(1))


def _by_batch(op: Tape, x: ir.Value) -> ir.Value:
    return op.Cast(op.Reshape(x, vector(op, [-1, 1, 1, 1])), to=_INT)


def _turned(op: Tape, node: ir.Node, heads: Heads) -> Heads:
    """Record queries and new keys turned by the angles of their positions."""
    if not integer(node, "do_rotary"):
        return heads
    given, caches = optional_input(node, 9), [operand(node, 7), operand(node, 8)]
    line = arange(op, scalar_at(op, op.Shape(heads.query), 2))
    places = given if given is not None else _places(op, node, heads, line)
    twisted = bool(integer(node, "rotary_interleaved"))
    query, key = (
        turned(op, x, caches, places, 0, interleaved=twisted) for x in (heads.query, heads.key)
    )
    return Heads(query, key, heads.value)


def _places(op: Tape, node: ir.Node, heads: Heads, line: ir.Value) -> ir.Value:
    """Record the position of every new token: (batch, new)."""
    starts = _steps(op, node, heads).starts
    rows = op.Reshape(op.Cast(operand(node, 5), to=_INT), vector(op, [-1, 1]))
    nothing = op.Mul(rows, op.const(0))
    return op.Add(op.Add(op.Reshape(starts, vector(op, [-1, 1])), nothing), line)


def _filled(
    op: Tape, node: ir.Node, pairs: Sequence[tuple[ir.Value, ir.Value]], steps: _Steps
) -> list[ir.Value]:
    """Record caches with the new tokens behind those seen, and zeros behind them.

    A buffer that is longer than what was seen, or that ONNX Runtime shares between past and
    present, is read up to there: what lies behind counts for nothing.
    """
    place = op.Reshape(arange(op, steps.total), vector(op, [1, 1, -1, 1]))
    room = scalar_at(op, op.Shape(operand(node, 3)), 2)
    behind = op.Add(op.Sub(place, steps.starts), room)
    last = op.Sub(op.Add(room, steps.new), op.const(1))
    index = op.Where(op.Less(place, steps.starts), place, op.Min(behind, last))
    inside = op.Less(place, op.Add(steps.starts, steps.new))
    return [_taken(op, past, new, index, inside) for past, new in pairs]


def _taken(op: Tape, past: ir.Value, new: ir.Value, index: ir.Value, inside: ir.Value) -> ir.Value:
    count, size = (
        known_size(new, 1, "the number of heads"),
        known_size(new, 3, "the size of a head"),
    )
    whole = op.Expand(index, vector(op, [1, count, 1, size]))
    found = op.GatherElements(op.Concat(past, new, axis=2), whole, axis=2)
    return like(chosen(op, inside, found, scalar(op, 0, dtype(new), "zero")), new)


def _visible(op: Tape, node: ir.Node, heads: Heads, steps: _Steps) -> ir.Value:
    """Record 0 for keys that may be looked at, and the lowest for others.

    Those may that are not later, nor out of the window; where it is not causal, all of a sequence.
    """
    kind, window = dtype(heads.query), integer(node, "local_window_size", -1)
    column = op.Add(op.Reshape(arange(op, steps.new), vector(op, [1, 1, -1, 1])), steps.starts)
    row = op.Reshape(arange(op, steps.total), vector(op, [1, 1, 1, -1]))
    causal = bool(integer(node, "causal", 1))
    allowed = op.LessOrEqual(row, column) if causal else op.Less(row, _ends(op, node))
    if window > 0:
        allowed = op.And(allowed, op.Less(op.Sub(column, row), op.const(window)))
    return chosen(op, allowed, scalar(op, 0, kind, "zero"), lowest(op, kind))


GROUPED = unfuse_group_query_attention
