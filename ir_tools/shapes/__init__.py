"""Symbolic dimensions and the small integer tensors that shapes are computed with."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.shapes import compute, elementwise, layout
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, Expr
from vlmpass.ir_tools.shapes.facts import UNKNOWN, Facts, Known, visit_scope
from vlmpass.ir_tools.shapes.roots import constant_of, is_constant, node_tensor

__all__ = [
    "UNKNOWN",
    "Algebra",
    "Dim",
    "Expr",
    "Facts",
    "Known",
    "constant_of",
    "facts_of",
    "is_constant",
    "node_tensor",
    "visit_scope",
]

_RULES = {**elementwise.RULES, **layout.RULES, **compute.RULES}


def facts_of(model: ir.Model) -> Facts:
    """Return an empty collection of facts for a model, to be filled by visiting its nodes."""
    return Facts(model.ir_version, _RULES, model.functions)
