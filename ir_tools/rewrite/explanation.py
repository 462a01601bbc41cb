"""Why a rule applies nowhere, or not at the node one has in mind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, left_out_at_calls, scopes
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.rewrite.alignment import MatchContext
from vlmpass.ir_tools.rewrite.constant_values import Constants
from vlmpass.ir_tools.rewrite.match import Match
from vlmpass.ir_tools.rewrite.propose import Proposal, propose
from vlmpass.ir_tools.rewrite.rule import Rule
from vlmpass.ir_tools.shapes.inferred_functions import last_axes

__all__ = ["Attempt", "explain", "where_it_applies"]


@dataclass(frozen=True)
class Attempt:
    """What came of a rule at one node.

    Attributes:
        node: The node where its root matched: ``Mul(14) at '/layers.3/Mul'``.
        applies: Whether it would be rewritten.
        matched: How many nodes of the pattern were found.
        of: How many nodes the pattern has at most.
        failed_at: The node where the match ended, written like `node`; empty if it applies.
        reason: What was wrong there; empty if it applies.
    """

    node: str
    applies: bool
    matched: int
    of: int
    failed_at: str = ""
    reason: str = ""

    def __str__(self) -> str:
        count = f"{self.matched} of {self.of} nodes"
        if self.applies:
            return f"{self.node}: applies ({count})"
        root = "" if self.failed_at == self.node else f", root {self.node}"
        return f"{self.failed_at}: {self.reason} ({count}{root})"


def _label(node: ir.Node, scope: Scope) -> str:
    version = scope.opsets.get(node.domain)
    schema = None if version is None else in_force(node.domain, node.op_type, version)
    since = "" if schema is None else f"({schema.version})"
    domain = f"{node.domain}::" if node.domain else ""
    return f"{domain}{node.op_type}{since} at '{node.name or node.outputs[0].name}'"


def _missing(rule: Rule, scope: Scope) -> str:
    """Return what the model lacks for the rule; empty if nothing."""
    opset = scope.opsets.get("")
    if rule.offered(opset, rule.emits | rule.or_emits, True):
        return ""
    return f"matches, but needs {rule.needs[0]} and this is opset {opset}"


def _attempt(
    rule: Rule, node: ir.Node, scope: Scope, around: MatchContext, names: Names
) -> tuple[Attempt, Match]:
    label, size = _label(node, scope), len(rule.plan.ops)
    found = propose(rule, node, around, names, node.name or node.op_type)
    if isinstance(found, Proposal):
        found.tape.discard()
        match, reason = found.match, _missing(rule, scope)
        count = len(match.matched())
        return Attempt(label, not reason, count, size, label if reason else "", reason), match
    match, declined = found
    count, where, _ = match.failure
    complete = where is None or declined is not match.failure[2]
    place = _label(node, scope) if where is None or complete else _label(where, scope)
    count = len(match.matched()) if complete else count
    return Attempt(label, False, count, size, place, str(declined)), match


def _names(match: Match) -> Iterator[str]:
    nodes = [*match.matched(), *([match.failure[1]] if match.failure[1] else [])]
    for node in nodes:
        yield node.name or ""
        yield from (value.name or "" for value in node.outputs)


def explain(rule: Rule, model: ir.Model, near: str | None = None) -> list[Attempt]:
    """Try a rule wherever its root's operator stands, changing nothing.

    Args:
        rule: The rule; its function is run where the pattern matches.
        model: The model.
        near: Part of the name of a node or value; only attempts that reach such a one are listed.

    Returns:
        One attempt per node, those that got furthest first, else in graph order.
    """
    attempts = []
    for node, attempt, match in _attempts(rule, model):
        own = [node.name or "", *(value.name or "" for value in node.outputs)]
        if near is None or any(near in name for name in [*own, *_names(match)]):
            attempts.append(attempt)
    return sorted(attempts, key=lambda attempt: (not attempt.applies, -attempt.matched))


def where_it_applies(rule: Rule, model: ir.Model) -> list[ir.Node]:
    """Return the nodes that a rule would rewrite as the model is, in graph order.

    Args:
        rule: The rule; its function is run where the pattern matches.
        model: The model, which is not changed.
    """
    return [node for node, attempt, _ in _attempts(rule, model) if attempt.applies]


def _attempts(rule: Rule, model: ir.Model) -> Iterator[tuple[ir.Node, Attempt, Match]]:
    """Try a rule at every node that its root may be."""
    constants, names = Constants(), Names.of(model)
    calls = left_out_at_calls(model), last_axes(model)
    ops = {op for root in rule.plan.root_ops for op in root.ops}
    for scope in scopes(model):
        welcome = rule.emits | rule.or_emits
        around = MatchContext(scope.opsets, constants, welcome, scope.in_function, *calls)
        for node in scope.graph:
            if (node.domain, node.op_type) in ops and node.outputs:
                yield node, *_attempt(rule, node, scope, around, names)
