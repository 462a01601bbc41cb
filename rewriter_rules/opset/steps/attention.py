"""Attention and rotary embedding, spelled by matrix products, masks and Softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.rewriter_rules.opset.build import scalar, vector, without
from vlmpass.rewriter_rules.opset.queries import (
    again,
    attribute,
    dims,
    dtype,
    integer,
    operand,
    optional_input,
    rank,
    real,
    used,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_WINDOWS = ("left_window_size", "right_window_size")
_D = ir.DataType


@adapter("Attention", 23, 24, asks=True)
def mask_of_full_length(op: Tape, node: ir.Node) -> Outputs:
    """Attention(q, k, v, m) -> Attention(q, k, v, Expand(m)), when m has one column for all."""
    mask = optional_input(node, 3)
    sizes = dims(mask) if mask is not None else None
    if mask is None or not sizes or sizes[-1] != 1:
        return UNCHANGED
    shape = op.Concat(vector(op, [1] * (len(sizes) - 1)), _key_length(op, node), axis=0)
    return again(op, node, [*node.inputs[:3], op.Expand(mask, shape), *node.inputs[4:]])


@adapter("Attention", 25, 24)
def without_window(op: Tape, node: ir.Node) -> Outputs:
    """Attention(q, k, v, left_window_size=w) -> products, masks and Softmax, when w >= 0."""
    if any(integer(node, name, -1) >= 0 for name in _WINDOWS):
        return _spelled(op, node)
    return without(op, node, *_WINDOWS)


@adapter("Attention", 24, 23)
def without_padding(op: Tape, node: ir.Node) -> Outputs:
    """Attention(q, k, v, m) -> Attention(q, k, v, Pad(m)), and products when lengths are given."""
    if optional_input(node, 6) is not None:
        return _spelled(op, node)
    mask = optional_input(node, 3)
    padded = None if mask is None else _padded(op, node, mask)
    if padded is mask:
        return again(op, node, node.inputs[:6]) if len(node.inputs) > 6 else UNCHANGED
    return again(op, node, [*node.inputs[:3], padded, *node.inputs[4:6]])


@expansion("Attention", 23)
def attention(op: Tape, node: ir.Node) -> Outputs:
    """Attention(q, k, v, m) -> MatMul(Softmax(MatMul(q, k^T) * scale + m), v)."""
    return _spelled(op, node)


def _key_length(op: Tape, node: ir.Node) -> ir.Value:
    """Record the length of past and new keys together, as a vector of one element."""
    key, past = operand(node, 1), optional_input(node, 4)
    axis = rank(key) - 2
    length = op.Shape(key, start=axis, end=axis + 1)
    return length if past is None else op.Add(length, op.Shape(past, start=2, end=3))


def _padded(op: Tape, node: ir.Node, mask: ir.Value) -> ir.Value:
    """Record a mask as long as the keys, its new columns masked out."""
    key, past, sizes = operand(node, 1), optional_input(node, 4), dims(mask)
    length = (dims(key) or [None, None])[-2]
    if past is not None:
        before = (dims(past) or [None] * 4)[2]
        length = None if length is None or before is None else length + before
    if sizes and sizes[-1] is not None and sizes[-1] == length:
        return mask
    count = rank(mask)
    missing = op.Sub(_key_length(op, node), op.Shape(mask, start=count - 1, end=count))
    pads = op.Concat(vector(op, [0] * (2 * count - 1)), missing, axis=0)
    if dtype(mask) == _D.BOOL:
        return op.Pad(mask, pads)
    return op.Pad(mask, pads, scalar(op, -math.inf, dtype(mask), "masked"))


@dataclass
class _Heads:
    """Query, key and value by head, of shape (batch, heads, length, size)."""

    query: ir.Value
    key: ir.Value
    value: ir.Value


def _by_head(op: Tape, x: ir.Value, heads: int) -> ir.Value:
    if rank(x) == 4:
        return x
    return op.Transpose(op.Reshape(x, vector(op, [0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _split_heads(op: Tape, node: ir.Node) -> _Heads:
    queries, keys = integer(node, "q_num_heads"), integer(node, "kv_num_heads")
    heads = _Heads(
        _by_head(op, operand(node, 0), queries),
        _by_head(op, operand(node, 1), keys),
        _by_head(op, operand(node, 2), keys),
    )
    past_key, past_value = optional_input(node, 4), optional_input(node, 5)
    if past_key is not None and past_value is not None:
        heads.key = op.Concat(past_key, heads.key, axis=2)
        heads.value = op.Concat(past_value, heads.value, axis=2)
    return heads


def _repeated(op: Tape, x: ir.Value, query: ir.Value) -> ir.Value:
    """Record keys or values with each head repeated for its group of query heads."""
    queries, keys = (dims(query) or [None] * 4)[1], (dims(x) or [None] * 4)[1]
    if queries is not None and queries == keys:
        return x
    heads = op.Shape(query, start=1, end=2)
    group = op.Div(heads, op.Shape(x, start=1, end=2))
    ones, one = vector(op, [1, 1]), vector(op, [2])
    spread = op.Expand(op.Unsqueeze(x, one), op.Concat(ones, group, ones, axis=0))
    shape = op.Concat(op.Shape(x, end=1), heads, op.Shape(x, start=2), axis=0)
    return op.Reshape(spread, shape)


def _scale_root(op: Tape, node: ir.Node, query: ir.Value) -> ir.Value | None:
    """Record the square root of the scale, by which queries and keys are multiplied each."""
    given, size = attribute(node, "scale"), (dims(query) or [None] * 4)[3]
    if given is not None or size is not None:
        scale = given.as_float() if given is not None else 1 / math.sqrt(size or 1)
        return None if scale == 1.0 else scalar(op, math.sqrt(scale), dtype(query), "scale")
    length = op.Cast(op.Shape(query, start=3, end=4), to=_D.FLOAT)
    return op.Cast(op.Reciprocal(op.Sqrt(op.Sqrt(length))), to=dtype(query))


def _positions(op: Tape, heads: _Heads, node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Record the absolute place of every query, as a column, and that of every key, as a row."""
    zero, one = op.const(0), op.const(1)
    queries = op.Squeeze(op.Shape(heads.query, start=2, end=3), vector(op, [0]))
    keys = op.Squeeze(op.Shape(heads.key, start=2, end=3), vector(op, [0]))
    column = op.Unsqueeze(op.Range(zero, queries, one), vector(op, [1]))
    past, valid = optional_input(node, 4), optional_input(node, 6)
    if past is not None:
        column = op.Add(column, op.Shape(past, start=2, end=3))
    elif valid is not None:
        lengths = op.Reshape(valid, vector(op, [-1, 1, 1, 1]))
        column = op.Add(column, op.Sub(lengths, queries))
    return column, op.Range(zero, keys, one)


def _allowed(op: Tape, node: ir.Node, heads: _Heads) -> ir.Value | None:
    """Record which query may look at which key by place; None if every one may."""
    left, right = (integer(node, name, -1) for name in _WINDOWS)
    causal, valid = integer(node, "is_causal"), optional_input(node, 6)
    if not causal and valid is None and left < 0 and right < 0:
        return None
    column, row = _positions(op, heads, node)
    tests: list[ir.Value] = []
    if causal:
        tests.append(op.LessOrEqual(row, column))
    if left >= 0:
        tests.append(op.LessOrEqual(op.Sub(column, op.const(left)), row))
    if right >= 0:
        tests.append(op.LessOrEqual(row, op.Add(column, op.const(right))))
    if valid is not None:
        tests.append(op.Less(row, op.Reshape(valid, vector(op, [-1, 1, 1, 1]))))
    allowed = tests[0]
    for test in tests[1:]:
        allowed = op.And(allowed, test)
    return allowed


def _bias(op: Tape, node: ir.Node, heads: _Heads) -> ir.Value | None:
    """Record what is added to the scores: 0, the mask's value, or minus infinity."""
    kind, mask = dtype(heads.query), optional_input(node, 3)
    allowed = _allowed(op, node, heads)
    if mask is None and allowed is None:
        return None
    zero, never = scalar(op, 0, kind, "zero"), scalar(op, -math.inf, kind, "masked")
    if mask is not None:
        mask = _padded(op, node, mask)
        if dtype(mask) == _D.BOOL:
            allowed = mask if allowed is None else op.And(allowed, mask)
            mask = None
    if mask is not None and dtype(mask) != kind:
        mask = op.Cast(mask, to=kind)
    if allowed is None:
        return mask
    return op.Where(allowed, zero if mask is None else mask, never)


def _probabilities(
    op: Tape, node: ir.Node, scores: ir.Value, bias: ir.Value | None, kind: ir.DataType
) -> ir.Value:
    """Record the Softmax of the scores, zero in rows that no key may be seen from."""
    precision = integer(node, "softmax_precision")
    wide = op.Cast(scores, to=_D(precision)) if precision else scores
    found = op.Softmax(wide, axis=-1)
    if precision:
        found = op.Cast(found, to=kind)
    if bias is None:
        return found
    highest = op.ReduceMax(bias, vector(op, [-1]), keepdims=1)
    nothing = op.Equal(highest, scalar(op, -math.inf, kind, "masked"))
    return op.Where(nothing, scalar(op, 0, kind, "zero"), found)


def _values(op: Tape, heads: _Heads, kind: ir.DataType) -> ir.Value:
    """Record the values of every query head, in the type of the queries, which holds them."""
    value, given = _repeated(op, heads.value, heads.query), dtype(heads.value)
    if given == kind:
        return value
    if not holds_all(kind, given):
        raise CannotConvert(f"its values are {given}, and the {kind} of its result holds not all")
    return op.Cast(value, to=kind)


def _spelled(op: Tape, node: ir.Node) -> list[ir.Value | None]:
    heads = _split_heads(op, node)
    kind, root = dtype(heads.query), _scale_root(op, node, heads.query)
    query, key = heads.query, _repeated(op, heads.key, heads.query)
    turned = op.Transpose(key, perm=[0, 1, 3, 2])
    if root is not None:
        query, turned = op.Mul(query, root), op.Mul(turned, root)
    stages = [op.MatMul(query, turned)]
    softcap = real(node, "softcap")
    if softcap:
        cap = scalar(op, softcap, kind, "softcap")
        stages.append(op.Mul(op.Tanh(op.Div(stages[0], cap)), cap))
    else:
        stages.append(stages[0])
    bias = _bias(op, node, heads)
    stages.append(stages[1] if bias is None else op.Add(stages[1], bias))
    stages.append(_probabilities(op, node, stages[2], bias, kind))
    result = op.MatMul(stages[3], _values(op, heads, kind))
    if rank(operand(node, 0)) == 3:
        result = op.Reshape(op.Transpose(result, perm=[0, 2, 1, 3]), vector(op, [0, 0, -1]))
    shown = stages[integer(node, "qk_matmul_output_mode")] if used(node, 3) else None
    return [result, heads.key, heads.value, shown]


@expansion("RotaryEmbedding", 23)
def rotary_embedding(op: Tape, node: ir.Node) -> Outputs:
    """RotaryEmbedding(x, cos, sin) -> Concat(a * cos - b * sin, a * sin + b * cos)."""
    x, heads = operand(node, 0), integer(node, "num_heads")
    value = _by_place(op, x, heads)
    cos, sin = _caches(op, node)
    turning, rest = _turning(op, value, integer(node, "rotary_embedding_dim"))
    turned = _rotated(op, turning, cos, sin, interleaved=bool(integer(node, "interleaved")))
    whole = turned if rest is None else op.Concat(turned, rest, axis=-1)
    return whole if value is x else op.Reshape(whole, op.Shape(x))


def _by_place(op: Tape, x: ir.Value, heads: int) -> ir.Value:
    """Record x with an axis for the heads behind that of the places, where it has none."""
    return op.Reshape(x, vector(op, [0, 0, heads, -1])) if rank(x) == 3 else x


def _turning(op: Tape, x: ir.Value, size: int) -> tuple[ir.Value, ir.Value | None]:
    """Record the part of each head that turns, and what is left of it; a size of 0 means all."""
    if not size:
        return x, None
    return _last(op, x, 0, size), _last(op, x, size, 2**31 - 1)


def _caches(op: Tape, node: ir.Node) -> list[ir.Value]:
    """Record the cosines and sines of every place, with an axis of size 1 for the heads."""
    places, caches = optional_input(node, 3), [operand(node, 1), operand(node, 2)]
    wanted = 3 if places is None else 2
    if any(len(dims(cache) or range(wanted)) != wanted for cache in caches):
        given = "without" if places is None else "with"
        raise CannotConvert(
            f"its caches do not have {wanted} axes, as they do {given} position_ids"
        )
    if places is not None:
        caches = [op.Gather(cache, places, axis=0) for cache in caches]
    heads = 2 if rank(operand(node, 0)) == 3 else 1
    return [op.Unsqueeze(cache, vector(op, [heads])) for cache in caches]


def _rotated(op: Tape, x: ir.Value, cos: ir.Value, sin: ir.Value, *, interleaved: bool) -> ir.Value:
    """Record pairs of elements, neighbours or from either half, turned by their angles."""
    if interleaved:
        first, second = (_last(op, x, start, 2**31 - 1, 2) for start in (0, 1))
    else:
        first, second = op.node("Split", [x], {"axis": -1, "num_outputs": 2}, outputs=2)
    real_part = op.Sub(op.Mul(first, cos), op.Mul(second, sin))
    imaginary = op.Add(op.Mul(first, sin), op.Mul(second, cos))
    if not interleaved:
        return op.Concat(real_part, imaginary, axis=-1)
    last = vector(op, [-1])
    pairs = op.Concat(op.Unsqueeze(real_part, last), op.Unsqueeze(imaginary, last), axis=-1)
    return op.Reshape(pairs, op.Shape(x))


def _last(op: Tape, x: ir.Value, start: int, end: int, step: int = 1) -> ir.Value:
    bounds = [vector(op, [each]) for each in (start, end, -1, step)]
    return op.Slice(x, *bounds)
