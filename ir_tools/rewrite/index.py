"""Which rules can apply at a node, and which nodes a change can concern: both by table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.rewrite.constants import is_constant
from vlmpass.ir_tools.rewrite.match import COMMUTATIVE
from vlmpass.ir_tools.rewrite.pattern import Capture, Op
from vlmpass.ir_tools.rewrite.plan import ABSENT_TOKEN
from vlmpass.ir_tools.rewrite.producers import token_of
from vlmpass.ir_tools.rewrite.rule import Rule

__all__ = ["Index", "Reach"]

_Places: TypeAlias = "frozenset[Op] | None"


def _inputs_may_match(rule: Rule, op: Op, op_type: str, tokens: Sequence[str]) -> bool:
    """Return whether the producers of a node's inputs leave a node pattern a chance."""
    plan, kinds, patterns = rule.plan, rule.kinds, op.inputs
    if op.attributes and len(tokens) > len(patterns):
        # Some inputs may be what the pattern has as attributes, so positions are not known.
        return True
    if patterns and isinstance(patterns[-1], Capture) and patterns[-1].rest:
        patterns = patterns[:-1]
    elif not op.open and any(token != ABSENT_TOKEN for token in tokens[len(patterns) :]):
        return False
    padded = [*tokens, *[ABSENT_TOKEN] * (len(patterns) - len(tokens))]
    orders = [padded]
    if len(patterns) == 2 and len(tokens) == 2 and op_type in COMMUTATIVE:
        orders.append(padded[::-1])
    return any(
        all(
            plan.may_match(part, token, kinds) for part, token in zip(patterns, order, strict=False)
        )
        for order in orders
    )


class Index:
    """Finds the rules worth trying at a node by its operator and the producers of its inputs.

    Args:
        rules: The rules on offer, in order of preference.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._by_root: dict[str, list[Rule]] = {}
        for rule in rules:
            for op_type in dict.fromkeys(t for op in rule.plan.root_ops for _, t in op.ops):
                self._by_root.setdefault(op_type, []).append(rule)
        self._known: dict[tuple[str, ...], tuple[Rule, ...]] = {}

    def rules_at(self, node: ir.Node) -> tuple[Rule, ...]:
        """Return the rules that may match with their root at a node.

        The answer depends on operators alone, so a model has few different ones; each is worked
        out once. This is the inner loop of a sweep: it is called for every node.
        """
        op_type = node.op_type
        if op_type not in self._by_root:
            return ()
        key = [node.domain, op_type]
        for value in node.inputs:
            if value is None:
                key.append(ABSENT_TOKEN)
                continue
            producer = value.producer()
            if producer is not None:
                key.append(producer.op_type)
            else:
                key.append("Constant" if is_constant(value) else "?")
        signature = tuple(key)
        found = self._known.get(signature)
        if found is None:
            found = self._known[signature] = self._work_out(node, signature)
        return found

    def _work_out(self, node: ir.Node, signature: tuple[str, ...]) -> tuple[Rule, ...]:
        domain, op_type, *_ = signature
        tokens = [token_of(value) for value in node.inputs]
        return tuple(
            rule
            for rule in self._by_root[op_type]
            if any(
                (domain, op_type) in op.ops and _inputs_may_match(rule, op, op_type, tokens)
                for op in rule.plan.root_ops
            )
        )


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
