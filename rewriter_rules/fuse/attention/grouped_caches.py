"""ONNX Runtime's own operator for grouped heads in the place of the standard's, its past inside.

No rule: behind a past, the operator takes several tokens for one sequence alone, and whoever asks
for it must know that.
"""

from __future__ import annotations

from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import Declined, Tape, refuse
from vlmpass.rewriter_rules.fuse.attention.causal import unequal
from vlmpass.rewriter_rules.fuse.attention.grouped_queries import grouped_node, untaken
from vlmpass.rewriter_rules.fuse.attention.inside import Grouped
from vlmpass.rewriter_rules.fuse.attention.mask_numbers import held
from vlmpass.rewriter_rules.fuse.attention.past_inside import WINDOWS
from vlmpass.rewriter_rules.fuse.attention.steps_back import axis_size
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["grouped_cache"]

GIVEN = 6
"""Queries, keys, values, a mask, and both of before."""


def grouped_cache(op: Tape, node: Node) -> list[Value] | Declined:
    """Build GroupQueryAttention of the standard's Attention, which joins what came before.

    Args:
        op: Records it.
        node: Attention with keys and values of before.

    Returns:
        What queries find, [batch, heads, length, size], all keys and all values; or why not.
    """
    query, key, value, mask, past_key, past_value = [*node.inputs, None, None, None][:GIVEN]
    assert query is not None
    assert key is not None
    assert value is not None
    if any(rank(each) != 4 for each in (query, key, value)):
        return refuse("{} is not known to be given 4 axes", node)
    grouped = Grouped(query, key, value, past_key, past_value, node.outputs[1])
    reason = _said_else(node, mask) or unequal(query, key) or untaken(grouped)
    if reason is not None:
        return reason
    bias = None if mask is None else _added(op, mask, grouped)
    if isinstance(bias, Declined):
        return bias
    kept = {name: node.attributes.get(name) for name in ("scale", "softcap")}
    causal = int_of(node, "is_causal", 0)
    given = {**kept, "causal": causal}
    found, *caches = grouped_node(op, grouped, given, bias)
    return [found if bias is None else _nothing_of_nothing(op, found, bias), *caches]


def _said_else(node: Node, mask: Value | None) -> Declined | None:
    """Return what the node does that the operator does not."""
    if any(int_of(node, each, -1) >= 0 for each in WINDOWS):
        return refuse("{} has a window, which counts otherwise", node)
    if any(each is not None for each in node.inputs[GIVEN:]):
        return refuse("{} is told how many keys are no padding", node)
    if any(each.uses() or each.is_graph_output() for each in node.outputs[3:]):
        return refuse("{} gives scores out", node)
    if mask is not None and int_of(node, "is_causal", 0) == 1:
        return refuse("{} has a mask and is causal, too", node)
    return None


def _added(op: Tape, mask: Value, grouped: Grouped) -> Value | Declined:
    """Return what is added to scores, [1 or batch, 1 or heads, queries, all keys]."""
    axes, dtype, query = rank(mask), grouped.query.dtype, grouped.query
    if axes not in (2, 3, 4) or dtype is None or query.shape is None or mask.shape is None:
        return refuse("the shape of {} is not known", mask)
    if mask.dtype == DataType.BOOL:
        mask = op.Where(mask, op.const(0.0, dtype), op.const(float(dtype.min), dtype))
    mask = mask if axes == 4 else op.Unsqueeze(mask, axes=list(range(4 - axes)))
    shape, whole = mask.shape, [*query.shape]
    if shape is None or not all(
        size == 1 or same_size(size, wanted)
        for size, wanted in zip(list(shape)[:2], whole[:2], strict=True)
    ):
        return refuse("{} is not known to have heads and batch of {}", mask, query)
    key = grouped.present
    if (
        key.shape is not None
        and same_size(shape[2], whole[2])
        and same_size(shape[3], key.shape[2])
    ):
        return mask
    assert grouped.past_key is not None
    total = op.Add(axis_size(op, grouped.past_key, 2), axis_size(op, grouped.key, 2))
    return op.Expand(mask, op.Concat(op.const([1, 1]), axis_size(op, query, 2), total, axis=0))


def _nothing_of_nothing(op: Tape, found: Value, bias: Value) -> Value:
    """Return 0 for queries of which nothing is left, of which the other makes NaN or the mean."""
    assert bias.dtype is not None
    lowest = float(bias.dtype.min)
    numbers = held(bias)
    if numbers is not None and min(numbers) > lowest:
        return found
    highest = op.ReduceMax(bias, axes=[-1], keepdims=1)
    nothing = op.LessOrEqual(highest, op.const(lowest, bias.dtype))
    return op.Where(nothing, op.const(0.0, found.dtype), found)
