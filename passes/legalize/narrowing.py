"""int32 in the place of int64, where a target does not run what computes with it."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.passes.dtype.narrowing_plan import NarrowingPlan
from vlmpass.passes.legalize.planning import LegalPlanner

__all__ = ["narrow", "narrowed_copy", "with_ranges"]

_WIDE = ir.DataType.INT64


def narrow(model: ir.Model, planner: LegalPlanner) -> bool:
    """Narrow what is proven; return whether anything was.

    Args:
        model: The one that the planner is of, changed in place.
        planner: It knows which nodes are not run.
    """
    return _plan(model, planner).apply()


def narrowed_copy(planner: LegalPlanner) -> ir.Model | None:
    """Return a copy in which what is proven is narrowed; None where that helps nothing."""
    if not any(each.decided and _is_wide(each.node) for each in planner.illegal):
        return None
    copy = clone(planner.model)
    there = replace(planner, model=copy)
    return copy if narrow(copy, there) else None


def with_ranges(error: Refused, planner: LegalPlanner) -> Refused:
    """Return a refusal that also says of what computes with int64 why int32 does not do."""
    unproven = _plan(planner.model, planner).unproven
    reasons = {
        planner.refusal(each).node: unproven[each.node]
        for each in planner.illegal
        if each.node in unproven
    }
    told = [
        replace(each, remedy=f"{each.remedy}; as int32 neither: {reasons[each.node]}")
        if each.node in reasons
        else each
        for each in error.refusals
    ]
    return Refused(error.request, told)


def _plan(model: ir.Model, planner: LegalPlanner) -> NarrowingPlan:
    wanted = {each.node for each in planner.illegal if each.decided}
    return NarrowingPlan(model, {}, keep_io=True, wanted=wanted)


def _is_wide(node: ir.Node) -> bool:
    return any(
        value is not None and value.dtype == _WIDE for value in (*node.inputs, *node.outputs)
    )
