"""MultiHeadAttention and DecoderMaskedMultiHeadAttention, said in standard operators."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import part, size_at, vector
from vlmpass.rewriter_rules.opset.queries import (
    integer,
    optional_input,
    rank,
    real,
    used,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.attended import Heads, How, attend, by_head, known_size, like
from vlmpass.rewriter_rules.unfuse.key_masks import MASKED, added, same_length
from vlmpass.rewriter_rules.unfuse.unfused import floats, lacks, unfused

__all__ = ["MULTIHEAD"]


@unfused("MultiHeadAttention", outputs=4)
def unfuse_multi_head_attention(op: Tape, node: ir.Node) -> Outputs:
    """MultiHeadAttention(q, k, v, b, m, e, pk, pv) -> Softmax(q @ [pk, k]^T + m + e) @ [pv, v]."""
    floats(node, 0, 1, 2, 3, 5, 6, 7)
    lacks(node, 9, "beams are told by a cache_indirection")
    new = _heads(op, node, [optional_input(node, index) for index in range(4)])
    if integer(node, "unidirectional"):
        same_length(new.query, new.key)
    return _attended(op, node, new, mask=4, bias=5, past=6)


@unfused("DecoderMaskedMultiHeadAttention", outputs=4)
def unfuse_decoder_masked_multi_head_attention(op: Tape, node: ir.Node) -> Outputs:
    """DecoderMaskedMultiHeadAttention(q, k, v, m, e, p, r) -> Softmax(q [p, k]^T + m + e) [r, v].

    Of the past keys p and values r, as many are looked at as past_sequence_length says.
    """
    floats(node, 0, 1, 2, 4, 5, 6, 10)
    lacks(node, 9, "beams are told by a cache_indirection")
    new = _heads(op, node, [*(optional_input(node, i) for i in range(3)), optional_input(node, 10)])
    return _attended(op, node, new, mask=3, bias=4, past=5)


def _attended(op: Tape, node: ir.Node, new: Heads, *, mask: int, bias: int, past: int) -> Outputs:
    """Record attention over new keys and those of the past.

    Args:
        op: The tape.
        node: The node.
        new: Its queries and new keys and values.
        mask: Which input is the mask.
        bias: Which one is added to the scores.
        past: Which one is the past keys; the past values and their length follow.
    """
    keys, key = _with_past(op, node, new.key, past, past + 2)
    values, value = _with_past(op, node, new.value, past + 1, past + 2)
    heads = Heads(new.query, keys, values)
    total = added(
        op,
        heads,
        optional_input(node, mask),
        optional_input(node, bias),
        causal=bool(integer(node, "unidirectional")),
        masked=real(node, "mask_filter_value", MASKED),
    )
    how = How(real(node, "scale"), total)
    found, scores = attend(op, heads, how, scores=used(node, 3))
    return [found, key, value, scores]


def _with_past(
    op: Tape, node: ir.Node, new: ir.Value, past: int, length: int
) -> tuple[ir.Value, ir.Value]:
    """Record what is looked at, and what is handed on: the same, unless a buffer is longer."""
    before, filled = optional_input(node, past), optional_input(node, length)
    if before is None:
        return new, new
    if filled is None:
        whole = op.Concat(before, new, axis=2)
        return whole, whole
    start = op.Cast(op.Reshape(filled, vector(op, [1])), to=ir.DataType.INT64)
    whole = op.Concat(op.Slice(before, vector(op, [0]), start, vector(op, [2])), new, axis=2)
    end = op.Add(start, size_at(op, new, 2))
    rest = op.Slice(before, end, size_at(op, before, 2), vector(op, [2]))
    return like(whole, new), op.Concat(whole, rest, axis=2)


def _heads(op: Tape, node: ir.Node, given: list[ir.Value | None]) -> Heads:
    """Record queries, keys and values by head, their bias added."""
    query, key, value, bias = given
    count = integer(node, "num_heads")
    assert query is not None
    packed = query if rank(query) == 5 else key if key is not None and rank(key) == 5 else None
    if packed is not None:
        return _unpacked(op, query, packed, bias, count)
    if key is None or value is None:
        raise CannotConvert("its keys and values are packed with the queries in three axes")
    width = known_size(query, -1, "the width of the query")
    if rank(key) == 4:
        turned = _plus(op, query, bias, 0, width)
        return Heads(by_head(op, turned, count), key, value)
    last = known_size(value, -1, "the width of the values")
    ends = [(query, 0, width), (key, width, 2 * width), (value, 2 * width, 2 * width + last)]
    return Heads(*(by_head(op, _plus(op, x, bias, *each), count) for x, *each in ends))


def _plus(op: Tape, x: ir.Value, bias: ir.Value | None, start: int, end: int) -> ir.Value:
    return x if bias is None else op.Add(x, part(op, bias, start, end))


def _unpacked(
    op: Tape, query: ir.Value, packed: ir.Value, bias: ir.Value | None, count: int
) -> Heads:
    """Record the parts of keys and values, or of queries too, that lie beside each other."""
    if bias is not None:
        raise CannotConvert("a bias beside what is packed in five axes has no order that is said")
    parts = [_head_part(op, packed, index) for index in range(3 if packed is query else 2)]
    return Heads(*parts) if packed is query else Heads(by_head(op, query, count), *parts)


def _head_part(op: Tape, packed: ir.Value, index: int) -> ir.Value:
    """Record (batch, length, heads, parts, size) at one part as (batch, heads, length, size)."""
    return op.Transpose(op.Gather(packed, op.const(index), axis=3), perm=[0, 2, 1, 3])


MULTIHEAD = unfuse_multi_head_attention + unfuse_decoder_masked_multi_head_attention
