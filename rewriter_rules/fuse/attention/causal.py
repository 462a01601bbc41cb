"""Masks that let each query see the keys up to its own place, and no others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of, refers
from vlmpass.ir_tools.rewrite import Declined, P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.attention.attention_masks import FAR_BELOW
from vlmpass.rewriter_rules.fuse.attention.mask_numbers import MANY, held
from vlmpass.rewriter_rules.fuse.attention.positions import (
    Terms,
    exactly,
    places_of,
    plus,
    terms_of_size,
)
from vlmpass.rewriter_rules.fuse.attention.scores import Mask
from vlmpass.rewriter_rules.fuse.attention.steps_back import integers, made_by, number

__all__ = ["CAUSAL", "Frontier", "Parts", "frontier_of", "frontier_of_all", "unequal", "unfit"]

DEEP = 8
"""A mask is put together in fewer steps."""
SPREAD = ("Expand", "Unsqueeze")
COMPARED = {"LessOrEqual": 0, "Less": -1}
"""Of keys with queries: how much further than queries begin the first of them sees."""
TURNED = ("Greater", "Less")
"""What compares the other way round, and how it would be said."""


@dataclass(frozen=True)
class Frontier:
    """Query i sees key j where j <= i + offset.

    Attributes:
        offset: How many keys there are before that of the first query.
        rows: For how many queries that is said.
        columns: Of how many keys.
        seen: Whether the condition holds for what is seen; otherwise for all else.
        window: How many keys up to that one each query sees; None for all of them.
    """

    offset: Terms
    rows: Terms
    columns: Terms
    seen: bool = True
    window: int | None = None


@dataclass(frozen=True)
class Parts:
    """What an operator of attention is given: [batch, heads, length, size] each.

    Attributes:
        query: Queries.
        key: New keys.
        past: Keys of before.
        present: Both, one behind the other.
    """

    query: Value
    key: Value
    past: Value | None = None
    present: Value | None = None


def frontier_of(mask: Value) -> Frontier | None:
    """Return what a mask of attention lets queries see, if that is up to some key for each.

    Args:
        mask: Added to scores, or the condition that they stay.
    """
    if mask.dtype == DataType.BOOL:
        return _condition(mask)
    mask = _without_guard(mask)
    node = made_by(mask, "Where", "Max", *SPREAD)
    if node is None:
        return _of_table(mask)
    if node.op_type == "Max":
        above = [each for each in node.inputs if each is not None and not _is_low(each)]
        return frontier_of(above[0]) if len(above) == 1 else None
    if node.op_type != "Where":
        spread = _handed_on(node)
        return None if spread is None else frontier_of(spread)
    seen, other = (held(each) for each in node.inputs[1:])
    found = None if node.inputs[0] is None else _condition(node.inputs[0])
    if found is None or seen is None or other is None:
        return None
    low = other if found.seen else seen
    fits = (seen if found.seen else other) == frozenset((0.0,))
    sure = fits and bool(low) and max(low) <= FAR_BELOW
    return replace(found, seen=True) if sure else None


def frontier_of_all(masks: Sequence[Mask]) -> Frontier | None:
    """Return what all masks of attention together let queries see, as `frontier_of` does of one.

    Args:
        masks: What is done to scores; there must be one at least.
    """
    found = [_of_mask(mask) for mask in masks]
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found) or len(known) > 2:
        return None
    return known[0] if len(known) == 1 else _both(*known)


def _of_mask(mask: Mask) -> Frontier | None:
    if mask.filled is None:
        return frontier_of(mask.value)
    fill = number(mask.filled)
    found = _condition(mask.value) if fill is not None and fill <= FAR_BELOW else None
    return found if found is None or mask.kept else _opposite(found)


def _is_low(value: Value | None) -> bool:
    found = number(value)
    return found is not None and found <= FAR_BELOW


def _without_guard(mask: Value) -> Value:
    """Return a mask without NaN in rows of which nothing is left, of which it has none."""
    node = made_by(mask, "Where")
    fill = None if node is None else number(node.inputs[1])
    equal = None if node is None else made_by(node.inputs[0], "Equal")
    if node is None or fill is None or not math.isnan(fill) or equal is None:
        return mask
    if number(equal.inputs[1]) != -math.inf:
        return mask
    highest, inner = made_by(equal.inputs[0], "ReduceMax"), node.inputs[2]
    same = highest is not None and inner is not None and highest.inputs[0] is inner
    axes = None if highest is None or len(highest.inputs) < 2 else integers(highest.inputs[1])
    return inner if same and inner is not None and axes == [-1] else mask


def _handed_on(node: Node) -> Value | None:
    """Return the mask that a node spreads over batch and heads."""
    whole = node.outputs[0].shape
    if node.op_type == "Unsqueeze":
        axes = integers(node.inputs[1])
        if (
            axes is None
            or whole is None
            or any(axis % len(whole) > len(whole) - 3 for axis in axes)
        ):
            return None
    return node.inputs[0]


def _condition(value: Value, deep: int = DEEP) -> Frontier | None:
    """Return what a condition says of queries and keys."""
    node = value.producer()
    if constant_of(value) is not None:
        return _of_table(value, condition=True)
    if node is None or node.domain or not deep:
        return None
    if node.op_type.replace(*TURNED) in COMPARED:
        return _compared(node)
    if node.op_type == "Trilu":
        return _triangle(node)
    source = node.inputs[0] if node.inputs else None
    if source is None or source.dtype is None:
        return None
    if node.op_type in ("And", "Or"):
        return _combined(node, deep - 1)
    if node.op_type == "Not":
        inner = _condition(source, deep - 1)
        return None if inner is None else _opposite(inner)
    if node.op_type == "Equal" and number(node.inputs[1]) == 0.0:
        inner = _condition(source, deep - 1) if held(source) == frozenset((0.0, 1.0)) else None
        return None if inner is None else _opposite(inner)
    if node.op_type == "Cast" and value.dtype != DataType.BOOL and not _is_flag(source):
        return None  # what is less than 1 may become 0
    if node.op_type in SPREAD and _handed_on(node) is None:
        return None
    handed = node.op_type in ("Cast", "Identity", *SPREAD)
    return _condition(source, deep - 1) if handed else None


def _is_flag(value: Value) -> bool:
    found = held(value)
    return found is not None and found <= {0.0, 1.0}


def _opposite(frontier: Frontier) -> Frontier:
    return replace(frontier, seen=not frontier.seen)


def _combined(node: Node, deep: int) -> Frontier | None:
    """Return what two conditions say together: up to one key, and not up to another."""
    found = [None if each is None else _condition(each, deep) for each in node.inputs]
    one, other = found
    if one is None or other is None:
        return None
    if node.op_type == "And":
        return _both(one, other)
    neither = _both(_opposite(one), _opposite(other))
    return None if neither is None else _opposite(neither)


def _both(one: Frontier, other: Frontier) -> Frontier | None:
    """Return what queries see of two things that hold, if that is a window up to some key."""
    upper, lower = (one, other) if one.seen else (other, one)
    size = plus(upper.offset, lower.offset, -1)
    whole = one.window is None and other.window is None
    if not whole or not upper.seen or lower.seen or list(size) != [None] or size[None] < 1:
        return None
    same = (upper.rows, upper.columns) == (lower.rows, lower.columns)
    return replace(upper, window=size[None]) if same else None


def _compared(node: Node) -> Frontier | None:
    """Return what a comparison of the places of keys and queries says."""
    operator = node.op_type.replace(*TURNED)
    first, second = node.inputs if operator == node.op_type else reversed(node.inputs)
    if first is None or second is None:
        return None
    seen = _along(first, -1) and _along(second, -2)
    if not seen and not (_along(first, -2) and _along(second, -1)):
        return None
    keys, queries = (places_of(each) for each in ((first, second) if seen else (second, first)))
    if keys is None or queries is None:
        return None
    more = COMPARED[operator]
    further = exactly(more if seen else -1 - more)
    offset = plus(plus(queries.first, keys.first, -1), further)
    return Frontier(offset, queries.count, keys.count, seen)


def _along(value: Value, axis: int) -> bool:
    """Return whether a value has one axis that may be none of 1, the last but so many."""
    sizes = [] if value.shape is None else list(value.shape)
    return len(sizes) >= -axis and all(
        size == 1 for at, size in enumerate(sizes) if at != len(sizes) + axis
    )


def _triangle(node: Node) -> Frontier | None:
    """Return what a triangle of ones says."""
    source = node.inputs[0]
    diagonal = integers(node.inputs[1]) if len(node.inputs) > 1 else [0]
    if source is None or source.shape is None or len(source.shape) < 2 or diagonal is None:
        return None
    rows, columns = (terms_of_size(size) for size in source.shape[-2:])
    if held(source) != frozenset((1.0,)) and not _all_true(source):
        return None
    if rows is None or columns is None or len(diagonal) != 1:
        return None
    upper = bool(int_of(node, "upper", 1))
    return Frontier(exactly(diagonal[0] - upper), rows, columns, not upper)


def _all_true(value: Value) -> bool:
    """Return whether a condition is known to hold everywhere."""
    node = made_by(value, "Expand", "ConstantOfShape")
    if node is not None and refers(node):
        return False
    if node is not None and node.op_type == "ConstantOfShape":
        tensor = node.attributes["value"].as_tensor() if "value" in node.attributes else None
        return tensor is not None and bool(tensor.numpy().all())
    source = value if node is None else node.inputs[0]
    return number(source) == 1.0


def _of_table(mask: Value, *, condition: bool = False) -> Frontier | None:
    """Return what a table says, of known size: of conditions, or of numbers that are added."""
    tensor = constant_of(mask)
    if tensor is None or tensor.size > MANY or tensor.size < 1 or len(tensor.shape) < 2:
        return None
    array = tensor.numpy()
    condition = condition or array.dtype == np.bool_
    seen = array != 0 if condition else array == 0
    rows, columns = seen.shape[-2:]
    wanted = np.tri(rows, columns, columns - rows, dtype=bool)
    window = int(seen.reshape(-1, columns)[-1].sum())
    near = wanted & ~np.tri(rows, columns, columns - rows - window, dtype=bool)
    low = condition or bool((array[~seen].astype(np.float64) <= FAR_BELOW).all())
    whole = bool((seen == wanted).all())
    if not low or columns < rows or not (whole or (window and bool((seen == near).all()))):
        return None
    sizes = exactly(columns - rows), exactly(rows), exactly(columns)
    return Frontier(*sizes, window=None if whole else window)


def unequal(query: Value, key: Value) -> Declined | None:
    """Return why there may be more or fewer new keys than queries.

    Args:
        query: Queries, [batch, heads, length, size].
        key: New keys likewise.
    """
    if _length(query) is None or _length(query) != _length(key):
        return refuse("{} and {} are not known to be equally many", query, key)
    return None


def _length(value: Value) -> Terms | None:
    """Return how many tokens there are of [batch, heads, tokens, size], as a sum of sizes."""
    shape = value.shape
    return terms_of_size(shape[2]) if shape is not None and len(shape) == 4 else None


def unfit(frontier: Frontier, parts: Parts) -> Declined | None:
    """Return why what a mask says is not known to be what an operator does by itself.

    Args:
        frontier: What the mask says.
        parts: What the operator is given.
    """
    frontier, query, key, past = _in_parts(frontier, parts), parts.query, parts.key, parts.past
    reason, new = unequal(query, key), _length(query)
    if reason is not None or new is None:
        return reason
    if not frontier.seen or any(count < 0 for count in frontier.offset.values()):
        return refuse("queries are not known to see a key each")
    if frontier.rows != new or frontier.columns != plus(frontier.offset, new):
        return refuse("not all queries and keys are known to be masked")
    if past is None and frontier.offset:
        return refuse("there are keys before those of the queries, outside of the operator")
    before = None if past is None or past.shape is None else terms_of_size(past.shape[2])
    if past is not None and frontier.offset != before:
        return refuse("queries are not known to begin where {} ends", past)
    return None


def _in_parts(frontier: Frontier, parts: Parts) -> Frontier:
    """Return what a mask says with the number of all keys taken apart, into before and now."""
    given = parts.key, parts.past, parts.present
    shapes = [each.shape for each in given if each is not None]
    sizes = [terms_of_size(shape[2]) for shape in shapes if shape is not None and len(shape) == 4]
    known = [size for size in sizes if size is not None]
    if len(known) != 3 or len(known[2]) != 1 or None in known[2]:
        return frontier
    (whole,) = known[2]
    both = plus(known[0], known[1])
    offset, columns = (_apart(each, whole, both) for each in (frontier.offset, frontier.columns))
    return replace(frontier, offset=offset, columns=columns)


def _apart(terms: Terms, whole: object, parts: Terms) -> Terms:
    times: Mapping[object, int] = terms
    found = times.get(whole, 0)
    rest = {size: count for size, count in terms.items() if size != whole}
    return plus(rest, parts, found)


MASKED = ("query", "key", "value", "mask")
CACHED = P.Attention(*MASKED, "past_key", "past_value", _outputs=3, _node="core")


@rule(CACHED | P.Attention(*MASKED, _outputs=3, _node="core"), opset=(23, None))
def causal_attention(
    op: Tape,
    query: Value,
    key: Value,
    value: Value,
    mask: Value,
    past_key: Value | None,
    past_value: Value | None,
    core: Node,
) -> Replacement:
    """Attention(q, k, v, mask) -> Attention(q, k, v, is_causal=1), when the mask is just that."""
    count = min(3, len(core.outputs))
    parts = Parts(query, key, past_key, core.outputs[1] if count > 1 else None)
    reason = _says_else(mask, parts, core)
    inputs = [query, key, value, None, past_key, past_value]
    given = {**core.attributes, "is_causal": 1}
    return reason or op.node("Attention", inputs, given, outputs=count)


def _says_else(mask: Value, parts: Parts, core: Node) -> Declined | None:
    """Return why a mask may say more, or less, than that queries see nothing later."""
    frontier = frontier_of(mask)
    if frontier is None or int_of(core, "is_causal", 0) == 1:
        return refuse("{} is not known to mask what comes after each query alone", mask)
    if frontier.window is not None:
        return refuse("{} also hides what lies {} keys or more before", mask, frontier.window)
    return unfit(frontier, parts)


CAUSAL = RuleSet((causal_attention,))
"""The operator masks what comes after each query by itself."""
