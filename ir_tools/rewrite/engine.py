"""Rules applied to a model until none applies any more."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.graph.edit import is_used, remove_initializer
from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges, changes
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.ir_tools.graph.tape import splice
from vlmpass.ir_tools.graph.walk import Scope, left_out_at_calls, scopes, subgraphs
from vlmpass.ir_tools.rewrite.alignment import MatchContext
from vlmpass.ir_tools.rewrite.constant_values import Constants
from vlmpass.ir_tools.rewrite.index import Candidate, Index, Reach
from vlmpass.ir_tools.rewrite.interior import Order, make_way
from vlmpass.ir_tools.rewrite.propose import Proposal, propose
from vlmpass.ir_tools.rewrite.rule import Declined, Rule, RuleSet
from vlmpass.ir_tools.shapes.inferred_functions import last_axes
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.listed import listed

__all__ = ["NoFixpoint", "Rewrites", "apply_rules"]

RULE_KEY: Final = "vlmpass.rule"
_FUEL: Final = 256
_FEW_USERS: Final = 8


Unwanted: TypeAlias = Callable[
    [Mapping[str, int]], Callable[[Sequence[ir.Node], Sequence[ir.Node]], str]
]
"""What says, for the opsets of a graph or function, why new nodes must not stand for old ones."""


def anything(_: Mapping[str, int]) -> Callable[[Sequence[ir.Node], Sequence[ir.Node]], str]:
    """Let any node stand at any opset."""
    return lambda *_: ""


class NoFixpoint(VlmpassError):
    """Rules undo each other for ever; the message names them, and the node they were last at."""

    def __init__(self, counts: Mapping[str, int], node: ir.Node) -> None:
        self.counts = dict(counts)
        rules = listed(f"{name} x{count}" for name, count in counts.items())
        super().__init__(
            f"rules keep firing on each other: {rules}; last at node '{node.name}'",
            remedy="run them apart, or let one of them refuse what the other makes",
        )


@dataclass(frozen=True)
class Rewrites:
    """What was done; true if anything was.

    Attributes:
        counts: Applications by rule name, in the rules' order.
        changes: What they did to numbers, as the rules declare it.
    """

    counts: Mapping[str, int]
    changes: NumberChanges = EXACT

    def __bool__(self) -> bool:
        return bool(self.counts)


@dataclass(frozen=True)
class _Lineage:
    """Where a new node comes from: what bounds rewriting of what was rewritten."""

    hint: str
    fuel: int
    rule: str
    before: _Lineage | None

    def counts(self) -> Mapping[str, int]:
        names: list[str] = []
        lineage: _Lineage | None = self
        while lineage is not None:
            names.append(lineage.rule)
            lineage = lineage.before
        return dict(sorted(Counter(names).items()))


class _Engine:
    def __init__(
        self,
        model: ir.Model,
        rules: Sequence[Rule],
        emits: Collection[str],
        fast_math: bool,
        unwanted: Unwanted,
    ) -> None:
        self.unwanted = unwanted
        self.model = model
        self.rules = rules
        self.emits = emits
        self.fast_math = fast_math
        self.counts: Counter[str] = Counter()
        self._constants = Constants()
        self._order = Order()
        self._indices: dict[ir.Graph | ir.Function, Index] = {}
        self._removals = Removals()
        self._names = Names.of(model, self._removals)
        self._calls = left_out_at_calls(model), last_axes(model)
        self._reach: Reach | None = None
        self._scopes: dict[ir.Graph | ir.Function, Scope] = {}
        self._lineages: dict[ir.Node, _Lineage] = {}
        self._budget = 0

    def run(self) -> None:
        """Sweep until a sweep finds nothing."""
        while True:
            before = self.counts.total()
            found = list(scopes(self.model))
            self._scopes = {
                scope.graph.graph if isinstance(scope.graph, ir.Function) else scope.graph: scope
                for scope in found
            }
            self._budget = self._budget or 10_000 + 20 * sum(len(s.graph) for s in found)
            for scope in found:
                try:
                    self._settle(scope)
                finally:
                    self._removals.finish()
            if self.counts.total() == before:
                return

    def _settle(self, scope: Scope) -> None:
        """Visit the nodes of a scope, users first, and again those that a change concerns."""
        index = self._index(scope)
        waiting: dict[ir.Node, Sequence[Candidate] | None] = {}
        for node in reversed(scope.graph):
            candidates = index.rules_at(node)
            if candidates and node.outputs:
                waiting[node] = candidates
        pending = deque(waiting)
        while pending:
            node = pending.popleft()
            known = waiting.pop(node)
            graph = node.graph
            if graph is None or node in self._removals:
                continue
            for concerned in self._visit(node, self._scopes[graph], known):
                if concerned not in waiting and concerned.graph in self._scopes:
                    pending.append(concerned)
                waiting[concerned] = None

    def _index(self, scope: Scope) -> Index:
        index = self._indices.get(scope.owner)
        if index is None:
            opset = scope.opsets.get("")
            offered = [r for r in self.rules if r.offered(opset, self.emits, self.fast_math)]
            unwanted = self.unwanted(scope.opsets)
            around = MatchContext(
                scope.opsets, self._constants, self.emits, scope.in_function, *self._calls, unwanted
            )
            index = self._indices[scope.owner] = Index(offered, around)
        return index

    def _visit(
        self, node: ir.Node, scope: Scope, known: Sequence[Candidate] | None
    ) -> Iterable[ir.Node]:
        """Try the rules worth trying at a node; return the nodes that what was done concerns."""
        index = self._index(scope)
        lineage = self._lineages.get(node)
        hint = lineage.hint if lineage else node.name or node.outputs[0].name or node.op_type
        for candidate in index.rules_at(node) if known is None else known:
            proposal = propose(
                candidate.rule, node, index.around, self._names, hint, candidate.layouts
            )
            if isinstance(proposal, Proposal):
                concerned = self._accept(proposal, scope, hint)
                if concerned is not None:
                    return concerned
        return ()

    def _accept(self, proposal: Proposal, scope: Scope, hint: str) -> Iterable[ir.Node] | None:
        """Make a rewrite; return the nodes it concerns, or None if it must not be made."""
        match, tape, gone = proposal.match, proposal.tape, proposal.gone
        root = match.roots()[0]
        way: Sequence[ir.Node] | Declined = gone
        if match.rule.plan.links:
            way = make_way(match.roots(), gone, self._order)
        if isinstance(way, Declined) or not may_apply(match.rule.name, root.name or hint):
            tape.discard()
            return None
        lineage = self._lineage(proposal, root, hint)
        operands = dict.fromkeys(v for node in gone for v in node.inputs if v is not None)
        users = [use.node for old, _ in proposal.pairs for use in old.uses()]
        for node in tape.nodes:
            node.metadata_props[RULE_KEY] = match.rule.name
            scope.owner.opset_imports.setdefault(node.domain, 1)
        in_function, remove = scope.in_function, self._removals.remove
        splice(tape, way, proposal.pairs, in_function=in_function, remove=remove)
        for index in self._indices.values():
            index.around.graph_changed()
        self._order.replaced(way[-1], tape.nodes)
        for node in tape.nodes:
            self._lineages[node] = lineage
        self.counts[match.rule.name] += 1
        for node in gone:
            self._lineages.pop(node, None)
        built = [output for node in tape.nodes for output in node.outputs]
        self._remove_unused([*operands, *built])
        return self._concerned([*tape.nodes, *users], operands)

    def _lineage(self, proposal: Proposal, root: ir.Node, hint: str) -> _Lineage:
        """Return the lineage of the new nodes, shorter by one unless the graph shrinks."""
        olds = [self._lineages[node] for node in proposal.gone if node in self._lineages]
        before = min(olds, key=lambda lineage: lineage.fuel, default=None)
        fuel = _FUEL if before is None else before.fuel
        if len(proposal.tape.nodes) >= len(proposal.gone):
            fuel -= 1
        lineage = _Lineage(hint, fuel, proposal.match.rule.name, before)
        if fuel < 0:
            raise NoFixpoint(lineage.counts(), root)
        if self.counts.total() >= self._budget:
            raise NoFixpoint(dict(self.counts), root)
        return lineage

    def _remove_unused(self, values: Iterable[ir.Value]) -> None:
        """Remove what nothing uses any more since a match that used it is gone."""
        pending = list(values)
        while pending:
            value = pending.pop()
            node = value.producer()
            if value.is_initializer() and not value.is_graph_input() and not is_used(value):
                remove_initializer(value)
            if node is None or node.graph is None or any(True for _ in subgraphs(node)):
                continue
            if node in self._removals:
                continue
            if any(output.uses() or output.is_graph_output() for output in node.outputs):
                continue
            pending.extend(value for value in node.inputs if value is not None)
            self._removals.remove(node.graph, [node])
            self._lineages.pop(node, None)

    def _concerned(
        self, changed: Sequence[ir.Node], operands: Iterable[ir.Value]
    ) -> Iterable[ir.Node]:
        """Return the nodes at which a rule may match now.

        Args:
            changed: Nodes that are new or have a new input.
            operands: What the removed nodes used; having lost a user, one may now be used inside
                a single match. One with many users left is not: a later sweep looks again.
        """
        if self._reach is None:
            self._reach = Reach(self.rules)
        left = [value.uses() for value in operands if value.producer() is not None]
        freed = [use.node for uses in left if len(uses) <= _FEW_USERS for use in uses]
        return dict.fromkeys(self._reach.roots_above(dict.fromkeys([*changed, *freed])))


@without_collector
def apply_rules(
    model: ir.Model,
    rules: RuleSet | Rule | Iterable[Rule],
    *,
    emits: Collection[str] = (),
    fast_math: bool = False,
    unwanted: Unwanted = anything,
) -> Rewrites:
    """Rewrite a model in place, subgraphs and functions included, until no rule applies.

    Where several rules apply at a node, the first in the set does. A rule is not offered in a
    graph or function whose opset it is not for.

    Args:
        model: The model.
        rules: A rule set, one rule, or any number of rules.
        emits: Domains beyond the standard one whose operators may be emitted.
        fast_math: Whether rules that change values beyond rounding are welcome.
        unwanted: For the opsets of a graph or function, says why a node that a rule built must not
            stand there, nothing of one that may.

    Raises:
        NoFixpoint: Rules undo each other; the model is left half rewritten.
        RuleError: A rule's function broke its contract.
    """
    given = (rules,) if isinstance(rules, Rule) else tuple(rules)
    engine = _Engine(model, given, emits, fast_math, unwanted)
    engine.run()
    counts = {rule.name: engine.counts[rule.name] for rule in given}
    fired = {name: count for name, count in counts.items() if count}
    effects = (effect for each in given if each.name in fired for effect in each.effects)
    return Rewrites(fired, changes(*effects))
