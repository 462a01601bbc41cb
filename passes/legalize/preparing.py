"""What takes more than one node in the place of one, before a model is made legal."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import RuleSet, apply_rules
from vlmpass.passes.control.dead_branches import DeadBranches
from vlmpass.passes.control.unroll_loops import UnrollLoops
from vlmpass.passes.infer import Infer
from vlmpass.passes.inline_functions import InlineFunctions
from vlmpass.passes.legalize.planning import LegalPlanner
from vlmpass.rewriter_rules.substitute import TOGETHER

__all__ = ["is_to_prepare", "prepare"]


def is_to_prepare(planner: LegalPlanner) -> bool:
    """Whether there is something to prepare for nodes that are not run."""
    return _inlines(planner) or bool(_merging(planner)) or _decides(planner)


def prepare(model: ir.Model, planner: LegalPlanner) -> bool:
    """Rewrite in place what takes more than one node; return whether anything was.

    Args:
        model: The one that the planner is of, or a copy.
        planner: It knows which nodes are not run.
    """
    inlined = _inlines(planner) and InlineFunctions().run(model)
    merged = sum(bool(apply_rules(model, rules)) for rules in _merging(planner)) > 0
    decided = _decides(planner) and _without_control(model)
    return inlined or merged or decided


def _without_control(model: ir.Model) -> bool:
    """Take out what of Ifs, Loops and Scans is decided before the model runs."""
    changed = DeadBranches().run(model)
    while UnrollLoops().run(model):
        changed = True
        Infer().run(model)
        DeadBranches().run(model)
    return changed


def _inlines(planner: LegalPlanner) -> bool:
    """Whether functions are called where the target takes none, or in ways that differ."""
    functions = planner.model.functions
    called = any(each.node.op_identifier() in functions for each in planner.illegal)
    decided = (each.node for each in planner.illegal if each.decided)
    return called or any(map(planner.reads_left_out, decided))


def _merging(planner: LegalPlanner) -> list[RuleSet]:
    """Return the rules by which a node that is not run may go with those around it."""
    decided = {each.node.op_identifier()[1] for each in planner.illegal if each.decided}
    return [rules for rules in TOGETHER if decided & _inner(rules)]


def _inner(rules: RuleSet) -> set[str]:
    return {name for rule in rules for each in rule.plan.ops for _, name in each.ops}


def _decides(planner: LegalPlanner) -> bool:
    """Whether a node that is not run holds graphs, of which one may be decided."""
    nodes = (each.node for each in planner.illegal if each.decided)
    return any(node.op_type in ("If", "Loop", "Scan") and not node.domain for node in nodes)
