"""Attention that projects its input itself, dense, quantised or of packed tokens."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import cast, part, size_at, vector
from vlmpass.rewriter_rules.opset.queries import (
    integer,
    integers,
    operand,
    operands,
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
    known_size,
    last_part,
)
from vlmpass.rewriter_rules.unfuse.key_masks import MASKED, added
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["PROJECTED", "Tokens", "spread_out"]


@unfused("Attention", outputs=2)
def unfuse_contrib_attention(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::Attention(x, w, b, m, p, e) -> Softmax(q @ [p, k]^T + m + e) @ [p, v]."""
    floats(node, 0, 1, 2, 4, 5)
    if optional_input(node, 6) is not None or integer(node, "past_present_share_buffer"):
        raise CannotConvert("its past and present share a buffer")
    whole, bias = op.MatMul(*operands(node, 2)), optional_input(node, 2)
    whole = whole if bias is None else op.Add(whole, bias)
    return _attended(op, node, whole, mask=3, past=4, bias=5)


@unfused("QAttention", outputs=2)
def unfuse_quantized_attention(op: Tape, node: ir.Node) -> Outputs:
    """QAttention(x, w, b, i, j, m, y, z, p) -> Softmax(q @ [p, k]^T + m) @ [p, v]."""
    kind = floats(node, 2, 3, 4, 8)
    product = op.MatMulInteger(
        operand(node, 0), operand(node, 1), optional_input(node, 6), optional_input(node, 7)
    )
    scale = op.Mul(operand(node, 3), operand(node, 4))
    whole = op.Add(op.Mul(op.Cast(product, to=kind), scale), operand(node, 2))
    return _attended(op, node, whole, mask=5, past=8, bias=None)


def _attended(
    op: Tape, node: ir.Node, whole: ir.Value, *, mask: int, past: int, bias: int | None
) -> Outputs:
    """Record attention over what was projected, and keys and values with those of the past.

    Args:
        op: The tape.
        node: The node.
        whole: Queries, keys and values beside each other.
        mask: Which input is the mask.
        past: Which one is the past keys and values.
        bias: Which one is added to the scores; None if the operator has no such input.
    """
    if integer(node, "do_rotary"):
        raise CannotConvert("it turns queries and keys by angles that it does not say")
    heads, before = _heads(op, node, whole), optional_input(node, past)
    if before is not None:
        parts = [op.Gather(before, op.const(index), axis=0) for index in (0, 1)]
        joined = zip(parts, (heads.key, heads.value), strict=True)
        key, value = (op.Concat(*pair, axis=2) for pair in joined)
        heads = Heads(heads.query, key, value)
    total = added(
        op,
        heads,
        optional_input(node, mask),
        None if bias is None else optional_input(node, bias),
        causal=bool(integer(node, "unidirectional")),
        masked=real(node, "mask_filter_value", MASKED),
        placeholder=True,
    )
    found, _ = attend(op, heads, How(real(node, "scale"), total))
    return [found, _both(op, heads) if used(node, 1) else None]


def _both(op: Tape, heads: Heads) -> ir.Value:
    pair = (op.Unsqueeze(each, axes=[0]) for each in (heads.key, heads.value))
    return op.Concat(*pair, axis=0)


def _heads(op: Tape, node: ir.Node, whole: ir.Value) -> Heads:
    """Record queries, keys and values by head, out of one product."""
    width = known_size(operand(node, 1), -1, "the width of its weights")
    sizes = integers(node, "qkv_hidden_sizes") or (width // 3,) * 3
    ends = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
    count = integer(node, "num_heads")
    parts = (last_part(op, whole, *ends[index : index + 2]) for index in range(3))
    query, key, value = (by_head(op, each, count) for each in parts)
    return Heads(query, key, value)


@dataclass(frozen=True)
class Tokens:
    """Tokens of several sequences without padding, and where they stand with it.

    Attributes:
        places: The place of each token among all of the padded batch.
        shape: The sizes of the padded batch: (batch, length).
        ends: How many tokens each sequence has.
    """

    places: ir.Value
    shape: ir.Value
    ends: ir.Value


def spread_out(op: Tape, node: ir.Node, offset: int, count: ir.Value) -> Tokens:
    """Record where packed tokens stand in a padded batch.

    Args:
        op: The tape.
        node: The node.
        offset: Which input is token_offset; cumulative_sequence_length follows.
        count: How many tokens there are, as a vector of one element.
    """
    offsets, sums = operand(node, offset), operand(node, offset + 1)
    flat = op.Reshape(offsets, vector(op, [-1]))
    places = op.Slice(flat, vector(op, [0]), count, vector(op, [0]))
    ends = op.Sub(part(op, sums, 1, 2**31 - 1), part(op, sums, 0, -1))
    return Tokens(cast(op, places, ir.DataType.INT64), op.Shape(offsets), ends)


@unfused("PackedAttention")
def unfuse_packed_attention(op: Tape, node: ir.Node) -> Outputs:
    """PackedAttention(x, w, b, o, n, e) -> Softmax(q @ k^T + e) @ v of each sequence.

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    floats(node, 0, 1, 2, 5)
    whole = op.Add(op.MatMul(*operands(node, 2)), operand(node, 2))
    tokens = spread_out(op, node, 3, size_at(op, whole, 0))
    heads = _heads(op, node, padded(op, tokens, whole))
    return gathered(op, node, tokens, heads, optional_input(node, 5))


def padded(op: Tape, tokens: Tokens, x: ir.Value) -> ir.Value:
    """Record packed tokens (tokens, width) as (batch, length, width), with zeros between.

    Args:
        op: The tape.
        tokens: Where they stand.
        x: The tokens.
    """
    width = vector(op, [known_size(x, -1, f"the last size of {x.name}")])
    rows = op.Concat(op.ReduceProd(tokens.shape, keepdims=1), width, axis=0)
    zero = ir.tensor([0], dtype=x.dtype)
    index = op.Unsqueeze(tokens.places, axes=[1])
    full = op.ScatterND(op.ConstantOfShape(rows, value=zero), index, x)
    made = op.Reshape(full, op.Concat(tokens.shape, width, axis=0))
    made.shape = ir.Shape([None, None, known_size(x, -1, "the width")])
    return made


def gathered(
    op: Tape, node: ir.Node, tokens: Tokens, heads: Heads, bias: ir.Value | None
) -> ir.Value:
    """Record attention within each sequence, and of what is found the tokens alone.

    Args:
        op: The tape.
        node: The node.
        tokens: Where the tokens stand.
        heads: Queries, keys and values of the padded batch.
        bias: What is added to the scores.
    """
    filler = real(node, "mask_filter_value", MASKED)
    total = added(op, heads, tokens.ends, bias, causal=False, masked=filler, ends=True)
    found, _ = attend(op, heads, How(real(node, "scale"), total))
    width = known_size(found, -1, "the width of what is found")
    return op.Gather(op.Reshape(found, vector(op, [-1, width])), tokens.places, axis=0)


PROJECTED = unfuse_contrib_attention + unfuse_quantized_attention + unfuse_packed_attention
