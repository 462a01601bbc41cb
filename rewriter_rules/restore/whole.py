"""All rounded numbers of a model at once, with the shapes that the rules ask for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import remove_initializer, remove_unused_constant
from vlmpass.ir_tools.graph.walk import TensorSlot, all_nodes, scopes, tensor_slots
from vlmpass.ir_tools.rewrite import EXACT, NumberChanges, RuleSet, apply_rules
from vlmpass.ir_tools.shapes.inferred import shapes_known
from vlmpass.ir_tools.types.cast_nodes import REASON
from vlmpass.ir_tools.weights import cast_from
from vlmpass.rewriter_rules.restore.rounded import NARROW

__all__ = ["restored"]


def restored(model: ir.Model, rules: RuleSet) -> NumberChanges:
    """Let numbers of the code that were rounded to a narrow type be what they were.

    Args:
        model: A model whose numbers are in a narrow type, behind Casts to float32, or were until
            they were cast lazily; its values are typed. Shapes that nobody declared are inferred
            where a size may matter, and stay undeclared.
        rules: Those to apply.

    Returns:
        What each number was and how often.
    """
    rounded = [slot for slot in tensor_slots(model) if _is_rounded(slot)]
    before = set(_initializers(model))
    if not rounded:
        return EXACT
    roots = any(_may_be_root(slot) for slot in rounded)
    with shapes_known(model) if roots else nullcontext():
        done = apply_rules(model, rules, fast_math=True)
    if not done:
        return EXACT
    _merge([value for value in _initializers(model) if value not in before])
    for slot in rounded:
        if slot.value is not None:
            remove_unused_constant(slot.value)
    return replace(done.changes, restored=_told(model, rules))


def _is_rounded(slot: TensorSlot) -> bool:
    return slot.tensor.size == 1 and slot.value is not None and cast_from(slot.tensor) in NARROW


def _may_be_root(slot: TensorSlot) -> bool:
    """Whether a number may be the rounding of a root of a size."""
    number = float(slot.tensor.numpy().item())
    return math.frexp(abs(number))[0] != 0.5 and _scales(slot.value)


def _scales(value: ir.Value | None) -> bool:
    users = [] if value is None else [user for user, _ in value.uses()]
    return any(
        user.op_type in ("Mul", "Div") or (user.op_type == "Cast" and _scales(user.outputs[0]))
        for user in users
    )


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for scope in scopes(model):
        yield from scope.initializers.values()


def _merge(numbers: list[ir.Value]) -> None:
    """Let equal numbers of one graph be one."""
    first: dict[tuple[ir.Graph | None, bytes, tuple[int, ...]], ir.Value] = {}
    for value in numbers:
        tensor = value.const_value
        assert tensor is not None
        key = (value.graph, tensor.tobytes(), tuple(tensor.shape.numpy()))
        kept = first.setdefault(key, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            remove_initializer(value)


def _told(model: ir.Model, rules: RuleSet) -> str:
    names = {rule.name for rule in rules}
    reasons = Counter(
        node.metadata_props[REASON]
        for node in all_nodes(model)
        if node.metadata_props.get("vlmpass.rule") in names and REASON in node.metadata_props
    )
    return ", ".join(f"{reason} ({count}x)" for reason, count in sorted(reasons.items()))
