"""ONNX Runtime's own operators for attention and rotary embeddings, where the standard's are none.

Its kernel of the standard's Attention is for opsets 23 and 24; later versions it takes apart.
"""

from __future__ import annotations

import numpy as np
from onnx_ir import DataType, Value

from vlmpass.ir_tools.rewrite import Declined, Replacement, Tape, refuse
from vlmpass.rewriter_rules.fuse.attention.steps_back import axis_size
from vlmpass.rewriter_rules.fuse.spellings import NOT_IN_FUNCTIONS, ORT
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["for_runtime", "multi_head_attention", "rotary_embedding"]

KERNELS = {"Attention": (23, 24), "RotaryEmbedding": (23, 26)}
"""First and last opset of the standard's operators that ONNX Runtime has kernels for."""


def for_runtime(op: Tape, operator: str) -> bool:
    """Return whether ONNX Runtime's own operator is asked for, and better than the standard's."""
    first, last = KERNELS[operator]
    return ORT in op.emits and not first <= op.opsets.get("", 1) <= last


def _sizes(query: Value, value: Value) -> tuple[int, int, int] | None:
    """Return the number of heads, and the sizes of a head of queries and of values."""
    if query.shape is None or value.shape is None:
        return None
    found = query.shape[1], query.shape[3], value.shape[3]
    numbers = [size for size in found if isinstance(size, int)]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def multi_head_attention(
    op: Tape,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    scale: float,
    *,
    causal: bool = False,
) -> Replacement:
    """Build MultiHeadAttention, and what joins and splits heads around it.

    Args:
        op: Records it.
        query: [batch, heads, queries, size].
        key: [batch, heads, keys, size].
        value: [batch, heads, keys, size].
        mask: Added to scores, with 2 or 4 axes.
        scale: Of the product.
        causal: Whether each query sees the keys up to its own place, of as many.
    """
    sizes = _sizes(query, value)
    if sizes is None or op.in_function:
        reason = "the size of a head of {} is not known" if sizes is None else NOT_IN_FUNCTIONS
        return refuse(reason, query if sizes is None else "MultiHeadAttention")
    heads, size, width = sizes
    if query.dtype != DataType.FLOAT:
        return refuse("{} is {}, and MultiHeadAttention runs in float32", query, query.dtype)
    if mask is not None and rank(mask) == 2:
        mask = op.Unsqueeze(mask, axes=[0, 1])
    rows = _rows(op, query, heads * size)
    if size != width:  # apart by heads, kernels take both in one size alone
        key, value = _rows(op, key, heads * size), _rows(op, value, heads * width)
    inputs = [rows, key, value, None, None, mask]
    given = {"num_heads": heads, "scale": scale, "unidirectional": 1 if causal else None}
    mixed = op.node("MultiHeadAttention", inputs, given, domain=ORT)[0]
    apart = op.Reshape(mixed, op.const([0, 0, heads, width]))
    return op.Transpose(apart, perm=[0, 2, 1, 3])


def _rows(op: Tape, x: Value, width: int) -> Value:
    """Record [batch, length, heads * size] for [batch, heads, length, size]."""
    return op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), op.const([0, 0, width]))


def rotary_embedding(
    op: Tape, x: Value, cos: Value, sin: Value, *, neighbours: bool, shared: bool
) -> Value | Declined:
    """Build RotaryEmbedding, which looks its angles up by place.

    Args:
        op: Records it.
        x: [batch, heads, length, size], of a known size.
        cos: [batch, length, pairs], or [1, length, pairs] of all batches.
        sin: Likewise.
        neighbours: Whether neighbours are pairs.
        shared: Whether angles are those of all batches.
    """
    if op.in_function:
        return refuse(NOT_IN_FUNCTIONS, "RotaryEmbedding")
    size = x.shape[3] if x.shape is not None else None
    assert isinstance(size, int)
    table = op.const([-1, size // 2])
    tables = [op.Reshape(each, table) for each in (cos, sin)]
    places = op.const([0]) if shared else _places(op, x)
    given = {"interleaved": 1 if neighbours else None}
    return op.node("RotaryEmbedding", [x, places, *tables], given, domain=ORT)[0]


def _places(op: Tape, x: Value) -> Value:
    """Return where each token's angles are, [batch, length], from the first of the first batch on.

    No Reshape: a length of 0 would be a size to keep there.
    """
    zero, one = op.const(np.int64(0)), op.const(np.int64(1))
    batch, length = (op.Squeeze(axis_size(op, x, axis), axes=[0]) for axis in (0, 2))
    first = op.Unsqueeze(op.Mul(op.Range(zero, batch, one), length), axes=[1])
    return op.Add(first, op.Unsqueeze(op.Range(zero, length, one), axes=[0]))
