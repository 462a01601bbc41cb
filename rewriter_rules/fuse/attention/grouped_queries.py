"""ONNX Runtime's own operator for attention of grouped heads, below opset 23.

Told lengths alone, it lets queries see the keys up to their own place, or a window of these. Where
a mask may hide anything else, such as padding, it is not causal, and what hides is added to scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import Declined, P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.attention.causal import (
    Parts,
    frontier_of_all,
    unequal,
    unfit,
)
from vlmpass.rewriter_rules.fuse.attention.inside import BY_HEAD, Grouped, flat, packed
from vlmpass.rewriter_rules.fuse.attention.past_inside import KEYS, VALUES, apart
from vlmpass.rewriter_rules.fuse.attention.positions import (
    Terms,
    exactly,
    plus,
    terms_of,
    terms_of_size,
)
from vlmpass.rewriter_rules.fuse.attention.scores import Mask
from vlmpass.rewriter_rules.fuse.attention.steps_back import axis_size, integers, made_by
from vlmpass.rewriter_rules.fuse.spellings import NOT_IN_FUNCTIONS, ORT
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = [
    "GROUPED_QUERIES",
    "OUTPUTS",
    "counted",
    "grouped_node",
    "grouped_query_attention",
    "untaken",
]

TYPES = (DataType.FLOAT, DataType.FLOAT16)
MULTIPLE = 8
"""Kernels take heads of a size that is a multiple of this."""
OUTPUTS = 3
"""What comes out, keys and values, without which kernels leave out what is of before."""


def _grouped(query: Value, key: Value, value: Value) -> Grouped | Declined:
    """Return what the operator is given, what is of before apart from what is new."""
    joins = [made_by(each, "Concat") for each in (key, value)]
    found = [node for node in joins if node is not None and len(node.inputs) == 2]
    if len(found) < len(joins):
        return Grouped(query, key, value, None, None, key)
    given = [x for node in found for x in node.inputs if x is not None]
    past_key, new_key, past_value, new_value = given
    axes = [int_of(node, "axis", 0) for node in found]
    reason = apart(past_key, new_key, past_value, new_value, axes[0], axes[1])
    return reason or Grouped(query, new_key, new_value, past_key, past_value, key)


def untaken(grouped: Grouped) -> Declined | None:
    """Return why the operator's kernels may not take what it is given, whatever its lengths.

    Args:
        grouped: What it is given.
    """
    shapes = [x.shape for x in (grouped.query, grouped.key, grouped.value) if x.shape is not None]
    sizes = [shape[3] for shape in shapes]
    if len(sizes) < 3 or any(not isinstance(size, int) or size % MULTIPLE for size in sizes):
        return refuse("its heads are of a size that is a multiple of 8, not {}", sizes)
    if len({*sizes}) > 1:
        return refuse("its heads are of one size, not {}", sizes)
    if grouped.query.dtype not in TYPES:
        return refuse("it runs in float32 and float16, not in {}", grouped.query.dtype)
    return None


def _many_behind(grouped: Grouped) -> Declined | None:
    """Return why there may be more new tokens behind others than kernels take."""
    shape = grouped.query.shape
    several = shape is not None and shape[0] != 1 and shape[2] != 1
    if grouped.past_key is not None and several:
        return refuse(
            "it takes several tokens behind others for one sequence alone, and {} may hold more",
            grouped.query,
        )
    return None


def grouped_query_attention(
    op: Tape,
    operands: Sequence[Value],
    masks: Sequence[Mask],
    whole: Value | None,
    given: Mapping[str, object],
) -> Replacement:
    """Build GroupQueryAttention: causal where masks are proven to be just that, told them if not.

    Args:
        op: Records it.
        operands: Queries, keys and values, [batch, heads, length, size], past included.
        masks: What is done to scores.
        whole: What is added to them for all masks, a row for each query, a column for each key.
        given: Its attributes for scale and cap.
    """
    if op.in_function:
        return refuse(NOT_IN_FUNCTIONS, "GroupQueryAttention")
    query, key, value = operands
    frontier, grouped = frontier_of_all(masks), _grouped(query, key, value)
    if isinstance(grouped, Declined):
        return grouped
    parts = Parts(query, grouped.key, grouped.past_key, grouped.present)
    reason = unequal(query, grouped.key) or untaken(grouped) or _many_behind(grouped)
    if reason is not None:
        return reason
    if frontier is None or unfit(frontier, parts) is not None:
        return grouped_node(op, grouped, {**given, "causal": 0}, _of_rank_4(op, whole))[0]
    window = {} if frontier.window is None else {"local_window_size": frontier.window}
    return grouped_node(op, grouped, {**given, **window})[0]


def _of_rank_4(op: Tape, mask: Value | None) -> Value | None:
    """Return a mask, [queries, keys] or of four axes, with axes for batch and heads."""
    return mask if mask is None or rank(mask) != 2 else op.Unsqueeze(mask, axes=[0, 1])


def grouped_node(
    op: Tape, grouped: Grouped, given: Mapping[str, object], bias: Value | None = None
) -> list[Value]:
    """Record the operator, lengths included, and what joins and splits heads around it.

    All of its outputs are named: ONNX Runtime's kernel leaves out what is of before where the keys
    and values that it joins are no outputs.

    Args:
        op: Records it.
        grouped: What it is given.
        given: Its attributes but for the numbers of heads.
        bias: What is added to scores, [1 or batch, 1 or heads, queries, keys].

    Returns:
        What queries find, all keys and all values, [batch, heads, length, size] each.
    """
    query = grouped.query
    assert query.shape is not None
    assert grouped.key.shape is not None
    heads = {"num_heads": query.shape[1], "kv_num_heads": grouped.key.shape[1]}
    rows = packed([flat(op, each) for each in (query, grouped.key, grouped.value)])
    now = [x for x in (grouped.past_key, _measured(grouped)) if x is not None]
    lengths = [axis_size(op, each, 2) for each in now]
    total = lengths[0] if len(lengths) == 1 else op.Add(*lengths)
    last = op.Cast(op.Sub(total, op.const([1])), to=DataType.INT32)
    ends = op.Expand(last, axis_size(op, now[-1], 0))
    whole = op.Cast(op.Squeeze(total, axes=[0]), to=DataType.INT32)
    inputs = [*rows, grouped.past_key, grouped.past_value, ends, whole]
    inputs += [] if bias is None else [None, None, None, bias]
    found = op.node("GroupQueryAttention", inputs, {**heads, **given}, domain=ORT, outputs=OUTPUTS)
    sizes = [0, 0, *(size for size in (query.shape[1], query.shape[3]) if isinstance(size, int))]
    split = op.Reshape(found[0], op.const(sizes))
    return [op.Transpose(split, perm=list(BY_HEAD)), *found[1:]]


def _measured(grouped: Grouped) -> Value:
    """Return of what sizes are asked: values where they are as many, which nothing turns."""
    key, value = grouped.key, grouped.value
    assert key.shape is not None
    same = value.shape is not None and all(map(same_size, key.shape, value.shape))
    return value if same else key


def _counts_less(core: Node, key: Value) -> Declined | None:
    """Return why what comes out may be other keys and values than those that are joined."""
    past, (ends, whole, *more) = core.inputs[3], [*core.inputs[5:], None, None]
    if len(core.outputs) < OUTPUTS or any(each is not None for each in more):
        return refuse("{} gives no keys and values, or turns them, or is told more", core)
    sizes = [terms_of_size(x.shape[2]) for x in (past, key) if x is not None and x.shape]
    known = [size for size in sizes if size is not None]
    count = plus(known[0], known[1]) if len(known) > 1 else None
    if count is None or (counted(ends), counted(whole)) != (plus(count, exactly(-1)), count):
        return refuse("{} is not known to be told that all keys count", core)
    return None


def counted(value: Value | None) -> Terms | None:
    """Return the one number of keys that is said, for all sequences; None where it is not known.

    Args:
        value: Lengths, or the whole length.
    """
    spread, numbers = made_by(value, "Expand"), integers(value)
    if numbers is not None:
        return exactly(numbers[0]) if len({*numbers}) == 1 else None
    return terms_of(value if spread is None else spread.inputs[0])


FLAT_KEY = P.Reshape(P.Transpose("key", perm=BY_HEAD), P.any).named("keys")
FLAT_VALUE = P.Reshape(P.Transpose("value", perm=BY_HEAD), P.any).named("values")
GROUPED = P.GroupQueryAttention(
    "query", FLAT_KEY, FLAT_VALUE, "past_key", "past_value", ..., _domain=ORT, _node="core",
    _outputs=OUTPUTS,
)  # fmt: skip


@rule(GROUPED, KEYS, VALUES, emits=ORT)
def present_of_grouped_query_attention(
    op: Tape,
    query: Value,
    keys: Value,
    key: Value,
    values: Value,
    value: Value,
    past_key: Value,
    past_value: Value,
    axis: int,
    along: int,
    core: Node,
) -> Replacement:
    """GroupQueryAttention(q, k, v, pk, pv), Concat(pk, k), Concat(pv, v) -> its three results."""
    reason = apart(past_key, key, past_value, value, axis, along) or _counts_less(core, key)
    if op.in_function:
        return refuse(NOT_IN_FUNCTIONS, core.op_type)
    inputs = [query, keys, values, past_key, past_value, *core.inputs[5:]]
    made = op.node(core.op_type, inputs, core.attributes, domain=ORT, outputs=OUTPUTS)
    return reason or [*made, *made[1:]]


GROUPED_QUERIES = RuleSet((present_of_grouped_query_attention,))
"""The operator joins what is given with what came before, and gives both."""
