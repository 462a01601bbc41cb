"""What the rows are that attention takes the Softmax of: product, scale, cap, masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_ir import Node, Value

from vlmpass.ir_tools.operators.traits import broadcasting, keeping_shape
from vlmpass.ir_tools.rewrite import Declined, refuse
from vlmpass.rewriter_rules.fuse.attention.steps_back import alone, made_by, number, scaled

__all__ = ["Mask", "Scores", "scores_of"]

DEEP = 7
"""No chain from a Softmax to the product has more nodes."""
LEAST, MOST = 1e-4, 1e4
"""Products with factors beyond may vanish, or be infinite, where one factor for all is neither."""


@dataclass(frozen=True)
class Mask:
    """What keeps scores from counting.

    Attributes:
        value: What is added to scores, or the condition of a Where.
        filled: What a Where puts in the place of scores; None where the mask is added.
        kept: Whether scores stay where the condition holds.
    """

    value: Value
    filled: Value | None = None
    kept: bool = True


@dataclass(frozen=True)
class Scores:
    """What probabilities are computed of.

    Attributes:
        query: Queries.
        turned: Keys, their last two axes swapped.
        scale: What the product is multiplied with.
        cap: What bounds the scaled product, 0.0 for nothing.
        masks: What is done to it then, in that order.
    """

    query: Value
    turned: Value
    scale: float
    cap: float = 0.0
    masks: Sequence[Mask] = ()


def _leads_to_product(value: Value | None, deep: int = DEEP) -> bool:
    """Return whether a value is a product, scaled, capped, masked or neither."""
    node = None if value is None or not deep else value.producer()
    if node is None or node.domain or node.op_type == "MatMul":
        return node is not None and not node.domain
    on_the_way = node.op_type in broadcasting() or node.op_type in keeping_shape()
    return on_the_way and any(_leads_to_product(each, deep - 1) for each in node.inputs)


def _mask(node: Node) -> tuple[Mask, Value] | Declined:
    """Return a mask and the scores that it is for."""
    first, second = node.inputs[-2:]
    ways = [(first, second, True), (second, first, False)]
    for scores, other, kept in ways:
        if scores is not None and other is not None and _leads_to_product(scores):
            if node.op_type == "Add":
                return Mask(other), scores
            condition = node.inputs[0]
            assert condition is not None
            return Mask(condition, other, kept), scores
    return refuse("{} adds to nothing that is a product of queries and keys", node)


def scores_of(rows: Value) -> Scores | Declined:
    """Return what rows are made of, or why they are no scores of attention.

    Args:
        rows: What the Softmax is of.
    """
    masks: list[Mask] = []
    while True:
        lonely = alone(rows)
        if isinstance(lonely, Declined):
            return lonely
        node = made_by(rows, "Add", "Where")
        if node is None:
            break
        found = _mask(node)
        if isinstance(found, Declined):
            return found
        masks.insert(0, found[0])
        rows = found[1]
    inner = _capped(rows)
    return inner if isinstance(inner, Declined) else replace(inner, masks=masks)


def _is_scale(factor: float) -> bool:
    """Return whether a factor is a number, and neither makes nothing of scores nor infinity."""
    return LEAST <= abs(factor) <= MOST


def _capped(value: Value) -> Scores | Declined:
    """Return scores that may be bounded: cap * tanh(scores / cap)."""
    node = made_by(value, "Mul")
    for tanh, factor in zip(node.inputs, reversed(node.inputs), strict=True) if node else ():
        cap, bent = number(factor), made_by(tanh, "Tanh")
        if cap is None or bent is None or tanh is None or bent.inputs[0] is None:
            continue
        lonely = alone(tanh)
        inner = lonely if isinstance(lonely, Declined) else _scaled(bent.inputs[0])
        if isinstance(inner, Declined):
            return inner
        if cap < 0 or not _is_scale(cap):
            return refuse("scores are bounded by {}", cap)
        return replace(inner, scale=inner.scale * cap, cap=cap)
    return _scaled(value)


def _scaled(value: Value) -> Scores | Declined:
    """Return a product of queries and keys, scaled before or after."""
    factors = []
    while True:
        lonely = alone(value)
        if isinstance(lonely, Declined):
            return lonely
        found = scaled(value)
        if found is None:
            break
        value = found[0]
        factors.append(found[1])
    node = made_by(value, "MatMul")
    if node is None or node.inputs[0] is None or node.inputs[1] is None:
        return refuse("{} is no product of queries and keys, scaled by a constant", value)
    query, turned = scaled(node.inputs[0]), scaled(node.inputs[1])
    factors += [each[1] for each in (query, turned) if each is not None]
    scale = math.prod(factors, start=1.0)
    if scale < 0 or not all(map(_is_scale, (*factors, scale))):
        return refuse("scores are scaled by {}", factors if len(factors) > 1 else scale)
    operands = query[0] if query else node.inputs[0], turned[0] if turned else node.inputs[1]
    return Scores(*operands, scale)
