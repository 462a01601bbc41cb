"""Keys and values of before that the operator itself puts in front of new ones."""

from __future__ import annotations

from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import Declined, P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.attention.steps_back import axis_size
from vlmpass.rewriter_rules.fuse.spellings import NOT_IN_FUNCTIONS, ORT

__all__ = ["PAST_INSIDE", "WINDOWS", "apart"]

KEYS = P.Concat("past_key", "key", axis="axis")
VALUES = P.Concat("past_value", "value", axis="along")
LENGTH = (2, -2)
"""The axis of tokens, of four."""
WINDOWS = ("left_window_size", "right_window_size")


def apart(
    past_key: Value, key: Value, past_value: Value, value: Value, axis: int, along: int
) -> Declined | None:
    """Return why what is joined is not known to be as many keys as values, before and now.

    Args:
        past_key: Keys of before.
        key: New keys.
        past_value: Values of before.
        value: New values.
        axis: Along which keys are joined.
        along: Along which values are.
    """
    if axis not in LENGTH or along not in LENGTH:
        return refuse("keys or values are joined along other axes, {} and {}", axis, along)
    if key is value and past_key is past_value:
        return refuse("{} is joined once, for keys and for values", key)
    operands = past_key, key, past_value, value
    if any(each.shape is None or len(each.shape) != 4 for each in operands):
        return refuse("{}, {}, {} and {} are not all known to have 4 axes", *operands)
    lengths = [each.shape[2] for each in operands if each.shape is not None]
    if not same_size(lengths[1], lengths[3]):
        return refuse("{} and {} are not known to be equally many", key, value)
    numbers = [size for size in (lengths[0], lengths[2]) if isinstance(size, int)]
    if len({*numbers}) > 1:
        return refuse("{} keys and {} values are of before", *numbers)
    return None


@rule(P.Attention("query", KEYS, VALUES, "mask?", _node="core"), KEYS, VALUES, opset=(23, None))
def past_of_attention(
    op: Tape,
    query: Value,
    past_key: Value,
    key: Value,
    past_value: Value,
    value: Value,
    axis: int,
    along: int,
    mask: Value | None,
    core: Node,
) -> Replacement:
    """Attention(q, Concat(pk, k), Concat(pv, v), m) -> Attention(q, k, v, m, pk, pv)."""
    reason = apart(past_key, key, past_value, value, axis, along)
    if int_of(core, "is_causal", 0):
        return refuse("{} is causal from the first key on, wherever queries begin", core)
    if any(int_of(core, each, -1) >= 0 for each in WINDOWS):
        return refuse("{} has a window, which counts from the first key given", core)
    inputs = [query, key, value, mask, past_key, past_value]
    return reason or op.node("Attention", inputs, core.attributes, outputs=3)


def _width(value: Value) -> int | None:
    """Return the size of all heads of a token together, [batch, heads, length, size]."""
    sizes = (value.shape[1], value.shape[3]) if value.shape is not None else ()
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers[0] * numbers[1] if len(numbers) == 2 else None


@rule(
    P.MultiHeadAttention("query", KEYS, VALUES, None, None, "bias?", _domain=ORT, _node="core"),
    KEYS,
    VALUES,
    emits=ORT,
)
def past_of_multi_head_attention(
    op: Tape,
    query: Value,
    past_key: Value,
    key: Value,
    past_value: Value,
    value: Value,
    axis: int,
    along: int,
    bias: Value | None,
    core: Node,
) -> Replacement:
    """MultiHeadAttention(q, Concat(pk, k), Concat(pv, v)) -> MultiHeadAttention of pk and pv."""
    reason = _takes_none(op, core) or apart(past_key, key, past_value, value, axis, along)
    width = _width(key)
    if reason is not None or width is None or width != _width(value):
        return reason or refuse("heads of {} and {} are not known to be of one size", key, value)
    rows = op.const([0, 0, width])
    flat = [op.Reshape(op.Transpose(each, perm=[0, 2, 1, 3]), rows) for each in (key, value)]
    inputs = [query, *flat, None, None, bias, past_key, past_value]
    return op.node("MultiHeadAttention", inputs, core.attributes, domain=ORT, outputs=3)


def _takes_none(op: Tape, core: Node) -> Declined | None:
    """Return why MultiHeadAttention may not be given what came before."""
    if op.in_function:
        return refuse(NOT_IN_FUNCTIONS, core.op_type)
    if int_of(core, "unidirectional", 0):
        return refuse("{} is causal from the first key on, wherever queries begin", core)
    return None


JOINED = P.Concat("before", "now", axis="axis").shared.named("joined")


@rule(P.Shape(JOINED, start="start", end="end"), opset=(23, None))
def size_of_joined(
    op: Tape, joined: Value, before: Value, now: Value, axis: int, start: int, end: int
) -> Replacement:
    """Shape(Concat(pk, k)), of tokens alone -> Shape(pk) + Shape(k), if attention takes these in.

    A mask that is cut to the size of what the operator itself joins would wait for it.
    """
    four = joined.shape is not None and len(joined.shape) == 4
    if not four or start not in LENGTH or end != start + 1:
        return refuse("not the size of tokens alone is asked for, of four axes")
    users = [use for use in joined.uses() if use.node.op_type == "Attention"]
    if axis not in LENGTH or not any(use.idx in (1, 2) for use in users):
        return refuse("{} is not joined for attention to take it in", joined)
    return op.Add(*(axis_size(op, each, 2) for each in (before, now)))


PAST_INSIDE = RuleSet((past_of_attention, past_of_multi_head_attention, size_of_joined))
"""The operator joins what is given with what came before, and gives both."""
