"""Symbolic dimensions and the small integer tensors that shapes are computed with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import onnx_ir as ir

from vlmpass.ir_tools.check.versions import check_functions
from vlmpass.ir_tools.graph.constants import constant_of, is_constant, node_tensor
from vlmpass.ir_tools.graph.walk import all_nodes, all_values
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, Expr
from vlmpass.ir_tools.shapes.analysis import Facts, visit_scope
from vlmpass.ir_tools.shapes.known import UNKNOWN, Known
from vlmpass.ir_tools.shapes.rules import compute, elementwise, fused, movement, number_ranges
from vlmpass.ir_tools.shapes.shape_rules import all_shape_rules, shape_rule

__all__ = [
    "UNKNOWN",
    "Algebra",
    "Dim",
    "Expr",
    "Facts",
    "Known",
    "constant_of",
    "drop_facts",
    "facts_by_names",
    "facts_of",
    "forget_removed",
    "is_constant",
    "keeping_facts",
    "kept_facts",
    "node_tensor",
    "shape_rule",
    "visit_scope",
]

_ENTERED = (compute, elementwise, fused, movement, number_ranges)
"""Imported for the rules that they enter."""


def facts_of(model: ir.Model) -> Facts:
    """Return an empty collection of facts for a model, to be filled by visiting its nodes.

    Raises:
        CheckError: Functions call themselves, or calls do not fit them.
    """
    if model.functions:
        check_functions(model)
    return Facts(model.ir_version, all_shape_rules(), model.functions)


def facts_by_names(model: ir.Model) -> Facts:
    """Return facts that believe the names of the inputs' axes: those of one name have one size.

    That is what a name means in ONNX, but no runtime holds inputs to it: what decides whether a
    node may go must not rest on it.
    """
    facts = facts_of(model)
    first: dict[str, Dim] = {}
    for value, axis, name in _named_axes(model):
        facts.declare(value, axis, first.setdefault(name, facts.algebra.axis(value, axis)))
    return facts


def _named_axes(model: ir.Model) -> Iterator[tuple[ir.Value, int, str]]:
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                yield value, axis, dim.value


_KEPT: WeakKeyDictionary[ir.Model, dict[bool, Facts]] = WeakKeyDictionary()


@contextmanager
def keeping_facts(model: ir.Model) -> Iterator[None]:
    """Let `kept_facts` return the same facts every time, until they are dropped.

    Facts are about values, so they stay true while every value that stays holds what it held;
    whoever changes more than that must call `drop_facts`.
    """
    _KEPT[model] = {}
    try:
        yield
    finally:
        _KEPT.pop(model, None)


def drop_facts(model: ir.Model) -> None:
    """Forget the facts kept for a model, if any are."""
    if model in _KEPT:
        _KEPT[model] = {}


def forget_removed(model: ir.Model) -> None:
    """Forget what is kept about nodes and values that are not in a model any more.

    Facts hold what they are about, so that nothing that was removed would be freed. Values of
    functions are left: what is known of bodies is found by the calls.
    """
    kept = _KEPT.get(model)
    if kept:
        nodes = set(all_nodes(model))
        values = set(all_values(model))
        for facts in kept.values():
            facts.forget(nodes, values)


def kept_facts(model: ir.Model, *, by_names: bool = False) -> Facts:
    """Return the facts kept for a model, which may know much already; empty ones if none are.

    Args:
        model: The model.
        by_names: Whether they are to be those of `facts_by_names`.
    """
    names = [name for _, _, name in _named_axes(model)]
    by_names = by_names and len(set(names)) < len(names)
    kept = _KEPT.get(model, {})
    if by_names not in kept:
        kept[by_names] = facts_by_names(model) if by_names else facts_of(model)
    return kept[by_names]
