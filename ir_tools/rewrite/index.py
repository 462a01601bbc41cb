"""Which rules can apply at a node, and which nodes a change can concern: both by table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.rewrite.alignment import Layout, MatchContext, Signature, tokens_in
from vlmpass.ir_tools.rewrite.decomposition import ABSENT_TOKEN, Token, ops_at
from vlmpass.ir_tools.rewrite.pattern import Either, Named, Op, Output, Pattern, Through
from vlmpass.ir_tools.rewrite.rule import Rule

__all__ = ["Candidate", "Index", "Reach"]

_Places: TypeAlias = "frozenset[Op] | None"


class Candidate(NamedTuple):
    """A rule worth trying at a node, and how its root lies on nodes of that kind."""

    rule: Rule
    layouts: Mapping[Op, Layout]


class _Near(NamedTuple):
    """The rules that producers leave a chance, and the inputs whose producers may say more."""

    candidates: tuple[Candidate, ...]
    below: tuple[int, ...]


class Index:
    """Finds the rules worth trying at a node by its operator and the producers of its inputs.

    Args:
        rules: The rules on offer, in order of preference.
        around: Imports and constants where the nodes lie.
    """

    def __init__(self, rules: Iterable[Rule], around: MatchContext) -> None:
        self.around = around
        self._by_root: dict[str, list[Rule]] = {}
        for rule in rules:
            for op_type in dict.fromkeys(t for op in rule.plan.root_ops for _, t in op.ops):
                self._by_root.setdefault(op_type, []).append(rule)
        self._near: dict[Signature, _Near] = {}
        self._far: dict[tuple[Signature | None, ...], tuple[Candidate, ...]] = {}

    def rules_at(self, node: ir.Node) -> tuple[Candidate, ...]:
        """Return the rules that may match with their root at a node.

        The answer depends on operators, ranks and numbers alone, at the node and at the producers
        of its inputs, so a model has few different ones; each is worked out once. This is the
        inner loop of a sweep: it is called for every node.
        """
        if node.op_type not in self._by_root:
            return ()
        around = self.around
        signature = around.signature(node)
        near = self._near.get(signature)
        if near is None:
            near = self._near[signature] = self._work_out(node, signature)
        if not near.below:
            return near.candidates
        key: list[Signature | None] = [signature]
        inputs = node.inputs
        for at in near.below:
            value = inputs[at]
            producer = None if value is None else value.producer()
            key.append(None if producer is None else around.signature(producer))
        far = tuple(key)
        found = self._far.get(far)
        if found is None:
            below = dict(zip(near.below, far[1:], strict=True))
            found = self._far[far] = tuple(
                candidate
                for candidate in near.candidates
                if any(
                    self._chance(candidate.rule, layout, signature, below)
                    for layout in candidate.layouts.values()
                )
            )
        return found

    def _work_out(self, node: ir.Node, signature: Signature) -> _Near:
        """Return what producers alone leave a chance, and the inputs worth another look."""
        found: list[Candidate] = []
        below: set[int] = set()
        for rule in self._by_root[node.op_type]:
            layouts = {
                op: self.around.work_out(rule, op, signature)
                for op in rule.plan.root_ops
                if (node.domain, node.op_type) in op.ops
            }
            if any(self._chance(rule, layout, signature, {}) for layout in layouts.values()):
                found.append(Candidate(rule, layouts))
                orders = (order for layout in layouts.values() for order in layout.orders)
                below |= {at for order in orders for part, at in order if ops_at(part)}
        return _Near(tuple(found), tuple(sorted(at for at in below if at < len(node.inputs))))

    def _chance(
        self,
        rule: Rule,
        layout: Layout,
        signature: Signature,
        below: Mapping[int, Signature | None],
    ) -> bool:
        """Return whether the producers of a node's inputs leave a node pattern a chance.

        Args:
            rule: The pattern's rule.
            layout: How it lies on the node.
            signature: The node's.
            below: The signatures of the producers of some inputs, by index.
        """
        tokens = tokens_in(signature)
        if layout.further is not None or not layout.rest_fits(tokens):
            return False
        padded = [*tokens, *[ABSENT_TOKEN] * 16]
        return any(
            all(self._fits(rule, part, padded[at], below.get(at)) for part, at in order)
            for order in layout.orders
        )

    def _fits(self, rule: Rule, part: Pattern, token: Token, below: Signature | None) -> bool:
        """Return whether a pattern may match a value, given its producer's signature if known."""
        if below is None or not rule.plan.may_match(part, token, rule.kinds):
            return rule.plan.may_match(part, token, rule.kinds)
        match part:
            case Op():
                return self._chance(rule, self.around.work_out(rule, part, below), below, {})
            case Output():
                return self._fits(rule, part.op, token, below)
            case Named():
                return self._fits(rule, part.inner, token, below)
            case Either():
                return any(self._fits(rule, option, token, below) for option in part.options)
            case Through():
                return token[0] in part.ops or self._fits(rule, part.inner, token, below)
        return True


class Reach:
    """Finds the nodes at which a change of a value can make a rule match.

    A pattern sees the change only if the nodes between the value and its root are those it names;
    the sets of places where a path of operators can stand in the patterns are worked out once
    each, so that following a path is one look-up a node.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._at: dict[str, frozenset[Op]] = {}
        self._parents: dict[Op, tuple[Op, ...]] = {}
        self._roots: set[Op] = set()
        self._next: dict[tuple[frozenset[Op], str], frozenset[Op]] = {}
        self._passed: set[str] = set()
        at: dict[str, set[Op]] = {}
        for rule in rules:
            self._parents.update(rule.plan.parents)
            self._roots.update(rule.plan.root_ops)
            for link in rule.plan.links:
                self._roots.add(link.root)
            for through in rule.plan.through:
                self._passed.update(through.ops)
            for op in rule.plan.ops:
                for _, op_type in op.ops:
                    at.setdefault(op_type, set()).add(op)
        self._at = {op_type: frozenset(ops) for op_type, ops in at.items()}

    def _step(self, places: _Places, op_type: str) -> frozenset[Op]:
        if places is None:
            return self._at.get(op_type, frozenset())
        key = (places, op_type)
        found = self._next.get(key)
        if found is None:
            above = {parent for place in places for parent in self._parents[place]}
            found = self._next[key] = frozenset(
                op for op in above if any(name == op_type for _, name in op.ops)
            )
        return found

    def roots_above(self, nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
        """Yield the nodes that may be roots of matches which one of these nodes is part of."""
        pending: list[tuple[ir.Node, _Places]] = [(node, None) for node in nodes]
        seen: set[tuple[ir.Node, _Places]] = set(pending)
        while pending:
            node, places = pending.pop()
            for further in self._steps(places, node.op_type):
                if further is not None and not self._roots.isdisjoint(further):
                    yield node
                for output in node.outputs:
                    for user, _ in output.uses():
                        if (user, further) not in seen:
                            seen.add((user, further))
                            pending.append((user, further))

    def _steps(self, places: _Places, op_type: str) -> Iterator[_Places]:
        """Yield where patterns can be after a node of this type, given where they were below."""
        further = self._step(places, op_type)
        if op_type in self._passed:
            yield None if places is None else further | places
        if further:
            yield further
