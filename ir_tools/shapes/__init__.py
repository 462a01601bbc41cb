"""Symbolic dimensions and the small integer tensors that shapes are computed with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import onnx_ir as ir

from vlmpass.ir_tools.check.versions import check_functions
from vlmpass.ir_tools.shapes import compute, elementwise, layout
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, Expr
from vlmpass.ir_tools.shapes.facts import Facts, visit_scope
from vlmpass.ir_tools.shapes.known import UNKNOWN, Known
from vlmpass.ir_tools.shapes.roots import constant_of, is_constant, node_tensor

__all__ = [
    "UNKNOWN",
    "Algebra",
    "Dim",
    "Expr",
    "Facts",
    "Known",
    "constant_of",
    "drop_facts",
    "facts_of",
    "is_constant",
    "keeping_facts",
    "kept_facts",
    "node_tensor",
    "visit_scope",
]

_RULES = {**elementwise.RULES, **layout.RULES, **compute.RULES}


def facts_of(model: ir.Model) -> Facts:
    """Return an empty collection of facts for a model, to be filled by visiting its nodes.

    Raises:
        CheckError: Functions call themselves, or calls do not fit them.
    """
    if model.functions:
        check_functions(model)
    return Facts(model.ir_version, _RULES, model.functions)


_KEPT: WeakKeyDictionary[ir.Model, Facts | None] = WeakKeyDictionary()


@contextmanager
def keeping_facts(model: ir.Model) -> Iterator[None]:
    """Let `kept_facts` return the same facts every time, until they are dropped.

    Facts are about values, so they stay true while every value that stays holds what it held;
    whoever changes more than that must call `drop_facts`.
    """
    _KEPT[model] = None
    try:
        yield
    finally:
        _KEPT.pop(model, None)


def drop_facts(model: ir.Model) -> None:
    """Forget the facts kept for a model, if any are."""
    if model in _KEPT:
        _KEPT[model] = None


def kept_facts(model: ir.Model) -> Facts:
    """Return the facts kept for a model, which may know much already; empty ones if none are."""
    if model not in _KEPT:
        return facts_of(model)
    facts = _KEPT[model]
    if facts is None:
        facts = _KEPT[model] = facts_of(model)
    return facts
