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
    op: Tape, query: Value, key: Value, value: Value, mask: Value | None, scale: float
) -> Replacement:
    """Build MultiHeadAttention, and what joins and splits heads around it.

    Args:
        op: Records it.
        query: [batch, heads, queries, size].
        key: [batch, heads, keys, size].
        value: [batch, heads, keys, size].
        mask: Added to scores, with 2 or 4 axes.
        scale: Of the product.
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
    rows = op.Reshape(op.Transpose(query, perm=[0, 2, 1, 3]), op.const([0, 0, heads * size]))
    inputs = [rows, key, value, None, None, mask]
    given = {"num_heads": heads, "scale": scale}
    mixed = op.node("MultiHeadAttention", inputs, given, domain=ORT)[0]
    apart = op.Reshape(mixed, op.const([0, 0, heads, width]))
    return op.Transpose(apart, perm=[0, 2, 1, 3])


def rotary_embedding(
    op: Tape, x: Value, cos: Value, sin: Value, *, neighbours: bool
) -> Value | Declined:
    """Build RotaryEmbedding, which looks its angles up by place.

    Args:
        op: Records it.
        x: [batch, heads, length, size].
        cos: [batch or 1, length, pairs].
        sin: Likewise.
        neighbours: Whether neighbours are pairs.
    """
    if op.in_function:
        return refuse(NOT_IN_FUNCTIONS, "RotaryEmbedding")
    pairs = cos.shape[2] if cos.shape is not None else None
    table = op.const([-1, pairs] if isinstance(pairs, int) else [-1])
    tables = [op.Reshape(each, table) for each in (cos, sin)]
    places = _places(op, x, shared=cos.shape is not None and cos.shape[0] == 1)
    given = {"interleaved": 1 if neighbours else None}
    return op.node("RotaryEmbedding", [x, places, *tables], given, domain=ORT)[0]


def _places(op: Tape, x: Value, *, shared: bool) -> Value:
    """Return where each token's angles are: from the first on, for all batches or for each."""
    if shared:
        return op.const([0])
    batch, length = axis_size(op, x, 0), axis_size(op, x, 2)
    count = op.Squeeze(op.Mul(batch, length))
    numbers = op.Range(op.const(np.int64(0)), count, op.const(np.int64(1)))
    return op.Reshape(numbers, op.Concat(batch, length, axis=0))
