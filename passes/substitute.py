"""The pass that replaces operators no runtime has, or that are named, by what they mean."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.edit import remove_unused_constant
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import Rule, apply_rules, explain
from vlmpass.passes.pipeline.base import Done, OptionError, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.rewriter_rules.substitute import SUBSTITUTE, roots
from vlmpass.rewriter_rules.substitute.aten import ATEN_RESIZES, aten_antialiased_resize, kernel_of
from vlmpass.rewriter_rules.substitute.aten_operators import (
    ATEN_OPERATORS,
    aten_operator,
    is_left_behind,
)
from vlmpass.rewriter_rules.substitute.misspelled import is_misspelled, respell

__all__ = ["Substitute"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Substitute(Pass):
    """Replace what PyTorch left behind, and operators that are named, by what means the same."""

    name: ClassVar[str] = "substitute"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "the model has nothing of the kind"
    mends_source: ClassVar[bool] = True  # nothing runs what PyTorch left behind

    operators: tuple[str, ...] = ()
    """Standard operators to replace wherever they stand, such as `[GridSample,Einsum]`; one of
    them that has to stay is refused. `TopK` is the one that takes the smallest."""

    def __post_init__(self) -> None:
        """Check that there is a rule for each operator."""
        super().__post_init__()
        known = sorted({operator for each in SUBSTITUTE for operator in roots(each)})
        for operator in self.operators:
            if operator not in known:
                problem = f"nothing is known that stands for {operator}"
                raise OptionError("operators", problem, remedy=f"choose of {', '.join(known)}")

    def mending(self) -> Pass:
        """Return the same for what nothing runs: the rest is compared with what it was."""
        return replace(self, operators=())

    def run(self, model: ir.Model) -> Done:
        """Rewrite in place; every node that is to be replaced and cannot be is listed."""
        foreign = sum(map(is_left_behind, all_nodes(model)))
        misspelled = [node for node in all_nodes(model) if is_misspelled(node)]
        for node in misspelled:
            respell(node)
        operands = dict.fromkeys(
            value
            for node in all_nodes(model)
            if self._is_meant(node)
            for value in node.inputs
            if value is not None
        )
        changed = apply_rules(model, (*ATEN_RESIZES, *ATEN_OPERATORS, *self._rules))
        for value in operands:
            remove_unused_constant(value)
        left = [node for node in all_nodes(model) if self._is_meant(node)]
        if left:
            raise Refused("substitute", [self._refusal(model, node) for node in left])
        if foreign := foreign + len(misspelled):
            _LOG.warning(
                "what PyTorch left and nothing runs is replaced (%d); the result is compared "
                "with the source after that",
                foreign,
            )
        return Done.of(changed, changed=bool(misspelled))

    @property
    def _rules(self) -> list[Rule]:
        return [each for each in SUBSTITUTE if roots(each) & set(self.operators)]

    def _is_meant(self, node: ir.Node) -> bool:
        named = node.domain == "" and node.op_type in self.operators
        return is_left_behind(node) or (named and any(_is_of(r, node) for r in self._rules))

    def _refusal(self, model: ir.Model, node: ir.Node) -> Refusal:
        name = node.name or node.outputs[0].name or ""
        foreign = aten_operator if kernel_of(node) is None else aten_antialiased_resize
        rules = [foreign] if node.domain else self._rules
        attempts = [each for rule in rules for each in explain(rule, model, near=name)]
        reason = next((each.reason for each in attempts if each.reason), "no rule is about it")
        return Refusal(attempts[0].node if attempts else name, reason)


def _is_of(rule: Rule, node: ir.Node) -> bool:
    """Whether a node is of the variant of an operator that a rule is about."""
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    return any(
        (node.domain, node.op_type) in root.ops
        and all(given.get(name) == value for name, value in root.attributes.items())
        for root in rule.plan.root_ops
    )
