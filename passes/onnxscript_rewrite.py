"""The pass onnxscript-rewrite: rewrite rules written for onnxscript, run by this project's means.

onnxscript matches and builds; naming, splicing, ordering and termination are done here, where a
new initializer overwrites none, a reused value keeps its name and rules that loop are named.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError, Refusal, Refused
from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.rewrite import Declined, NoFixpoint, Order, make_way
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.values import imported

if TYPE_CHECKING:
    from onnxscript.rewriter import (  # type: ignore[import-not-found,unused-ignore]
        RewriteRule,
    )

__all__ = ["OnnxscriptRewrite"]

_FUEL: Final = 64


@dataclass(frozen=True)
class OnnxscriptRewrite(Pass):
    """Apply rewrite rules written for onnxscript, guarded against its known defects."""

    name: ClassVar[str] = "onnxscript-rewrite"
    edits_shapes: ClassVar[bool] = True
    nothing: ClassVar[str] = "no rule matched"
    idempotent: ClassVar[bool] = False
    rules: str
    """A RewriteRuleSet, a RewriteRule or a list of rules as package.module:attribute, such as
    onnxscript.rewriter.rules.common:gelu_rules."""

    def __post_init__(self) -> None:
        """Find the rules, so that a wrong name is noticed before anything runs."""
        super().__post_init__()
        self._rules()

    def run(self, model: ir.Model) -> bool:
        """Apply the rules to the main graph, its subgraphs and the functions, to a fixed point."""
        return _Driver(model, self._rules(), str(self)).run()

    def _rules(self) -> Sequence[RewriteRule]:
        if importlib.util.find_spec("onnxscript") is None:
            raise PipelineError(
                f"{self.name} needs onnxscript", remedy="pip install 'vlmpass[torch]'"
            )
        from onnxscript.rewriter import RewriteRule, RewriteRuleSet

        found = imported("rules", self.rules, "package.module:attribute")
        rules: list[RewriteRule] = []
        for rule in found if isinstance(found, (RewriteRuleSet, list, tuple)) else [found]:
            if not isinstance(rule, RewriteRule):
                raise OptionError("rules", f"{self.rules} holds {rule!r}, which is no RewriteRule")
            if rule.as_function:
                raise OptionError("rules", f"rule {rule} makes functions, which is not supported")
            rules.append(rule)
        return rules


class _Driver:
    """Tries rules where their roots stand and splices what they build."""

    def __init__(self, model: ir.Model, rules: Sequence[RewriteRule], request: str) -> None:
        self.model = model
        self.request = request
        self.names = Names.of(model)
        self.order = Order()
        self.counts: Counter[str] = Counter()
        self.fuel: dict[ir.Node, int] = {}
        self.budget = 10_000 + 20 * sum(len(scope.graph) for scope in scopes(model))
        self.by_root: dict[str | None, list[RewriteRule]] = {}
        self.rules = rules
        for rule in rules:
            for op_type in _root_types(rule):
                self.by_root.setdefault(op_type, []).append(rule)

    def run(self) -> bool:
        """Sweep until nothing applies; return whether anything did."""
        while True:
            before = self.counts.total()
            for scope in list(scopes(self.model)):
                self._sweep(scope)
            if self.counts.total() == before:
                return before > 0

    def _sweep(self, scope: Scope) -> None:
        from onnxscript.optimizer import (  # type: ignore[import-not-found,unused-ignore]
            basic_constant_propagation,
        )

        for rule in self.rules:
            if rule.graph_pre_visitor:
                rule.graph_pre_visitor()
        basic_constant_propagation(scope.graph)
        pending = list(reversed(list(scope.graph)))
        while pending:
            node = pending.pop()
            if node.graph is not None:
                new = self._visit(scope, node)
                basic_constant_propagation(new)
                pending.extend(reversed(new))
        for rule in self.rules:
            if rule.graph_post_visitor:
                rule.graph_post_visitor()

    def _visit(self, scope: Scope, node: ir.Node) -> Sequence[ir.Node]:
        """Try the rules at a node; return the nodes that stand there now, if others do."""
        rules = [*self.by_root.get(node.op_type, ()), *self.by_root.get(None, ())]
        for rule in rules:
            name = rule.name or "onnxscript rule"
            try:
                delta = rule.try_rewrite(self.model, scope.graph, node)
            except ValueError as error:
                refusal = Refusal(f"{node.name or node.op_type} ({node.op_type})", str(error))
                raise Refused(f"{self.request}, {name}", [refusal]) from error
            if delta is None:
                continue
            tape = Tape(self.names, scope.opsets, node.name or node.op_type)
            tape.nodes = list(delta.new_nodes)
            tape.constants = list(delta.new_initializers)
            pairs = list(zip(delta.match.outputs, delta.new_outputs, strict=True))
            matched = delta.match.nodes if rule.remove_nodes else []
            growth = len(delta.new_nodes) - len(delta.match.nodes)
            if self._replace(scope, node, name, tape, matched, pairs, growth):
                return tape.nodes
        return ()

    def _replace(
        self,
        scope: Scope,
        node: ir.Node,
        name: str,
        tape: Tape,
        matched: Sequence[ir.Node],
        pairs: Sequence[tuple[ir.Value, ir.Value]],
        growth: int,
    ) -> bool:
        """Put what a rule built in the place of what it matched, if that can be done."""
        producers = [old.producer() for old, _ in pairs]
        roots = list(dict.fromkeys(root for root in producers if root is not None))
        gone = list(dict.fromkeys([*(each for each in matched if each not in roots), *roots]))
        replaced = {old for old, _ in pairs}
        kept = any(
            value.uses() or value.is_graph_output()
            for root in roots
            for value in root.outputs
            if value not in replaced
        )
        way: Sequence[ir.Node] | Declined = gone
        if len(roots) > 1:
            way = make_way(roots, gone, self.order)
        if kept or isinstance(way, Declined) or not may_apply(name, node.name or node.op_type):
            tape.discard()
            return False
        self._spend(node, name, tape, gone, growth)
        self._name(tape)
        for new in tape.nodes:
            new.metadata_props["vlmpass.rule"] = name
            infer_node(new, scope.opsets)
        splice(tape, way, pairs, in_function=scope.in_function)
        self.order.replaced(way[-1], tape.nodes)
        return True

    def _spend(
        self, node: ir.Node, name: str, tape: Tape, gone: Iterable[ir.Node], growth: int
    ) -> None:
        """Count an application; raise where what rules made is rewritten again and again."""
        self.counts[name] += 1
        fuel = min((self.fuel.pop(each, _FUEL) for each in gone), default=_FUEL) - (growth >= 0)
        if fuel < 0 or self.counts.total() > self.budget:
            raise NoFixpoint(dict(self.counts), node)
        for new in tape.nodes:
            self.fuel[new] = fuel

    def _name(self, tape: Tape) -> None:
        """Give new nodes, values and initializers names that nothing in the model has."""
        for constant in tape.constants:
            constant.name = tape.names.value(f"{tape.hint}/{constant.name or 'const'}")
        for node in tape.nodes:
            node.name = tape.names.node(f"{tape.hint}/{node.op_type}")
            for value in node.outputs:
                value.name = tape.names.value(f"{tape.hint}/{node.op_type}_output")


def _root_types(rule: RewriteRule) -> list[str | None]:
    """Return the operators at which a rule's match can be rooted; None stands for any."""
    pattern = rule._target_pattern
    identifiers = [node.op_identifier() for node in pattern.output_nodes]
    return list(dict.fromkeys(None if each is None else each[1] for each in identifiers))
