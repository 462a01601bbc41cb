"""Matching one rule at one node, with backtracking only where operands or alternatives compete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.rewrite.alignment import Given, Layout, MatchContext, tokens_in
from vlmpass.ir_tools.rewrite.attributes import axis_rank, unmentioned
from vlmpass.ir_tools.rewrite.captures import ATTRIBUTE, MISS, TENSOR, Kind, same
from vlmpass.ir_tools.rewrite.constant_values import reference_of
from vlmpass.ir_tools.rewrite.decomposition import Link
from vlmpass.ir_tools.rewrite.expected import attribute_is, is_number, widens
from vlmpass.ir_tools.rewrite.links import roots_beside
from vlmpass.ir_tools.rewrite.pattern import (
    Absent,
    Capture,
    Either,
    Named,
    Number,
    Op,
    Output,
    Pattern,
    Through,
)
from vlmpass.ir_tools.rewrite.producers import Found
from vlmpass.ir_tools.rewrite.rule import Declined, Rule

__all__ = ["Match"]

Goal: TypeAlias = "tuple[Pattern, ir.Value | None, ir.Node]"
Goals: TypeAlias = "tuple[Goal, Goals] | None"
Steps: TypeAlias = "Sequence[Sequence[Goal]]"
_NO_FAILURE: Final = (-1, None, Declined(""))
Bound: TypeAlias = "tuple[dict[Any, Any], object]"
_DONE: Final[Steps] = ((),)
_FAIL: Final[Steps] = ()


@dataclass(frozen=True, eq=False)
class _Skip(Pattern):
    """A node to look through, once that way is chosen."""

    through: Through
    node: ir.Node


@dataclass(frozen=True, eq=False)
class _Elsewhere(Pattern):
    """A further root, looked for among the users of what is matched already."""

    link: Link


class Match:
    """One attempt to match a rule at a node.

    Args:
        rule: The rule.
        around: Imports and constants where the node lies.
        layouts: How the rule's root lies on the node, where that is known.

    Attributes:
        captured: What the captures stand for, after a successful run.
        nodes: The matched node of each node pattern.
        passed: Nodes that were looked through.
        failure: Of a failed run, the attempt that got furthest: how many nodes it had matched,
            the node where it ended, and why.
    """

    __slots__ = (
        "_around",
        "_kinds",
        "_layouts",
        "_root",
        "_trail",
        "_values",
        "captured",
        "failure",
        "nodes",
        "passed",
        "rule",
    )

    def __init__(self, rule: Rule, around: MatchContext, layouts: Mapping[Op, Layout]) -> None:
        self.rule = rule
        self.captured: dict[str, object] = {}
        self.nodes: dict[Op, ir.Node] = {}
        self.passed: dict[ir.Node, Through] = {}
        self.failure: tuple[int, ir.Node | None, Declined] = _NO_FAILURE
        self._around = around
        self._layouts = layouts
        self._kinds = rule.kinds
        self._root: ir.Node | None = None
        self._trail: list[Bound] = []
        self._values: dict[Pattern, ir.Value | None] = {}

    def run(self, node: ir.Node) -> bool:
        """Match the rule with its first root at a node."""
        self._root = node
        goals: Goals = None
        for link in reversed(self.rule.plan.links):
            goals = ((_Elsewhere(link), None, node), goals)
        root = self.rule.plan.roots[0]
        if isinstance(root, Op) and root in self._layouts:  # so its operator is known to fit
            if not any(self._solve_step(step, goals) for step in self._node(root, node)):
                return False
        elif not self._solve(((root, node.outputs[0], node), goals)):
            return False
        for name in self.rule.plan.uncertain:
            self.captured.setdefault(name, None)
        return self._dtypes_fit(node)

    def matched(self) -> list[ir.Node]:
        """Return every node that the match spans, once each."""
        return list(dict.fromkeys([*self.nodes.values(), *self.passed]))

    def roots(self) -> list[ir.Node]:
        """Return the nodes whose outputs are replaced, in the order of the pattern's roots."""
        assert self._root is not None
        return [self._root, *(self.nodes[link.root] for link in self.rule.plan.links)]

    def outputs_of(self, root: ir.Node) -> int:
        """Return how many outputs of a root node are replaced; those beyond are unused."""
        counts = [op.outputs for op, node in self.nodes.items() if node is root]
        return min(max(counts), len(root.outputs))

    def _solve(self, goals: Goals) -> bool:
        while goals is not None:
            goal, goals = goals
            steps = self._step(*goal)
            if len(steps) == 1:
                for further in reversed(steps[0]):
                    goals = (further, goals)
                continue
            return any(self._solve_step(step, goals) for step in steps)
        return True

    def _solve_step(self, step: Sequence[Goal], goals: Goals) -> bool:
        mark = len(self._trail)
        for further in reversed(step):
            goals = (further, goals)
        if self._solve(goals):
            return True
        self._undo(mark)
        return False

    def _undo(self, mark: int) -> None:
        while len(self._trail) > mark:
            table, key = self._trail.pop()
            del table[key]

    def _fail(self, node: ir.Node, text: str, *details: object) -> Steps:
        count = len(self.nodes) + len(self.passed)
        if count > self.failure[0]:
            self.failure = (count, node, Declined(text, details))
        return _FAIL

    def _step(self, pattern: Pattern, value: ir.Value | None, user: ir.Node) -> Steps:
        """Return the ways to go on from one goal: none, one, or several to choose from."""
        match pattern:
            case Op():
                return self._op(pattern, value, 0, user)
            case Capture():
                return self._capture(pattern.name, value, user, pattern.rank)
            case Number():
                return self._number(pattern.value, value, user)
            case Either():
                return self._either(pattern, value, user)
            case Output():
                return self._op(pattern.op, value, pattern.index, user)
            case Named():
                return self._named(pattern, value, user)
            case Through():
                return self._through(pattern, value, user)
            case _Skip():
                return self._skip(pattern)
            case _Elsewhere():
                return self._elsewhere(pattern.link)
            case Absent():
                if value is None:
                    return _DONE
                return self._fail(user, "expected no input, found {}", Found(value))
        return _DONE if value is not None else self._fail(user, "expected an input, found none")

    def _bind(self, name: str, thing: object, user: ir.Node) -> Steps:
        if name in self.captured:
            if same(self.captured[name], thing):
                return _DONE
            return self._fail(
                user, "{} is {} elsewhere, but {} here", name, self.captured[name], thing
            )
        self.captured[name] = thing
        self._trail.append((self.captured, name))
        return _DONE

    def _scalar(self, value: ir.Value, user: ir.Node) -> np.ndarray | None:
        """Return the constant that stands for one number here, if it is one."""
        array = self._around.constants.small(value)
        if array is None or array.size == 0:
            return None
        if array.size > 1 and not (array == array.flat[0]).all():
            return None
        return None if array.ndim and widens(array, user, value) else array

    def _number(self, expected: float, value: ir.Value | None, user: ir.Node) -> Steps:
        array = self._scalar(value, user) if value is not None else None
        if array is not None and is_number(array, expected):
            return _DONE
        return self._fail(user, "expected a constant {}, found {}", expected, Found(value))

    def _capture(
        self, name: str, value: ir.Value | None, user: ir.Node, rank: int | None = None
    ) -> Steps:
        kind = self._kinds[name]
        if value is None:
            return self._fail(user, "input {} is missing", name)
        if rank is not None and (value.shape is None or value.shape.rank() != rank):
            return self._fail(user, "{} ({}) is not known to have {} axes", name, value, rank)
        if kind.plain:
            return self._bind(name, value, user)
        thing = self._read(kind, value, user)
        if thing is MISS:
            return self._fail(user, "{} is not {}: found {}", name, kind.says, Found(value))
        return self._bind(name, thing, user)

    def _read(self, kind: Kind, value: ir.Value, user: ir.Node) -> object:
        if kind.says == TENSOR.says:
            tensor = constant_of(value)
            return MISS if tensor is None else tensor
        reference = None if kind.of_reference is None else reference_of(value)
        if kind.of_reference is not None and reference is not None:
            return kind.of_reference(reference)
        assert kind.of_array is not None
        array = self._scalar(value, user) if kind.scalar else self._around.constants.small(value)
        return MISS if array is None else kind.of_array(array)

    def _again(self, pattern: Pattern, value: ir.Value | None, user: ir.Node) -> Steps | None:
        """Hold a pattern that stands in several places to one value; None at the first place."""
        if pattern in self._values:
            if self._values[pattern] is value:
                return _DONE
            other = Found(self._values[pattern])
            return self._fail(user, "expected {} again, found {}", other, Found(value))
        self._values[pattern] = value
        self._trail.append((self._values, pattern))
        return None

    def _either(self, pattern: Either, value: ir.Value | None, user: ir.Node) -> Steps:
        plan, token = self.rule.plan, self._around.token(value)
        if pattern in plan.repeated:
            again = self._again(pattern, value, user)
            if again is not None:
                return again
        steps = [
            ((option, value, user),)
            for option in pattern.options
            if plan.may_match(option, token, self._kinds)
        ]
        if steps:
            return steps
        # None can match; the first says best what was expected.
        return (((pattern.options[0], value, user),),)

    def _named(self, pattern: Named, value: ir.Value | None, user: ir.Node) -> Steps:
        steps = self._capture(pattern.name, value, user)
        return (((pattern.inner, value, user),),) if steps else steps

    def _through(self, pattern: Through, value: ir.Value | None, user: ir.Node) -> Steps:
        if pattern in self.rule.plan.repeated:
            again = self._again(pattern, value, user)
            if again is not None:
                return again
        return self._behind(pattern, value, user)

    def _behind(self, pattern: Through, value: ir.Value | None, user: ir.Node) -> Steps:
        """Look through one more node, or match what is inside here."""
        here: Goal = (pattern.inner, value, user)
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in pattern.ops or node.graph is not user.graph:
            return ((here,),)
        return (((_Skip(pattern, node), value, user),), (here,))

    def _skip(self, skip: _Skip) -> Steps:
        self.passed[skip.node] = skip.through
        self._trail.append((self.passed, skip.node))
        return self._behind(skip.through, skip.node.inputs[0], skip.node)

    def _op(self, op: Op, value: ir.Value | None, index: int, user: ir.Node) -> Steps:
        node = value.producer() if value is not None else None
        if value is None or node is None or (node.domain, node.op_type) not in op.ops:
            return self._fail(user, "expected {}, found {}", op.label, Found(value))
        if value.index() != index:
            return self._fail(node, "expected output {} of {}", index, op.label)
        known = self.nodes.get(op)
        if known is not None:
            return _DONE if known is node else self._fail(node, "is not the same as {}", known)
        if node.graph is not user.graph:
            return self._fail(node, "lies in another graph")
        return self._node(op, node)

    def _node(self, op: Op, node: ir.Node) -> Steps:
        self.nodes[op] = node
        self._trail.append((self.nodes, op))
        if len(node.outputs) > op.outputs:
            for output in node.outputs[op.outputs :]:
                if output.uses() or output.is_graph_output():
                    return self._fail(node, "its output {} is used", output)
        if op.node is not None and not self._bind(op.node, node, node):
            return _FAIL
        layout = self._layouts.get(op) if node is self._root else None
        if layout is None:
            layout = self._around.layout(self.rule, op, node)
        if op.strict and not node.attributes.data.keys() <= op.attributes.keys():
            for attribute in unmentioned(node, op.attributes, layout.schema):
                return self._fail(node, "has {}={}", attribute.name, attribute.value)
        for given in layout.given:
            if not self._given(node, given):
                return _FAIL
        return self._inputs(node, layout)

    def _inputs(self, node: ir.Node, layout: Layout) -> Steps:
        inputs = node.inputs
        if layout.further is not None:
            return self._fail(node, "has a further input, {}", Found(inputs[layout.further]))
        if layout.rest is not None:
            rest = tuple(inputs[index] for index in layout.rest_at)
            known = node is self._root and bool(self._layouts)  # then the index has looked already
            if not known and not layout.rest_fits(tokens_in(self._around.signature(node))):
                return self._fail(node, "no {} produces an input", " or ".join(layout.among))
            if None in rest and not self._kinds[layout.rest].optional:
                return self._fail(node, "leaves out an input that {} needs", layout.rest)
            if not self._bind(layout.rest, rest, node):
                return _FAIL
        count = len(inputs)
        return [
            [(part, inputs[at] if at < count else None, node) for part, at in order]
            for order in layout.orders
        ]

    def _given(self, node: ir.Node, given: Given) -> Steps:
        """Compare or capture an attribute."""
        attribute = node.attributes.data.get(given.name)
        expected, found = given.expected, given.default
        if attribute is not None and attribute.is_ref():
            return self._reference(node, given, attribute)
        if attribute is not None:
            found = attribute.value
        elif given.index is not None:
            value = node.inputs[given.index]
            array = None if value is None else self._around.constants.small(value)
            found = MISS if array is None else tuple(array.ravel().tolist())
        if found is MISS:
            return self._fail(node, "{} is not known before it runs", given.name)
        if isinstance(expected, str):
            return self._capture_attribute(node, given.name, expected, found)
        if attribute_is(found, expected, rank=axis_rank(node, given.name)):
            return _DONE
        return self._fail(node, "expected {}={}, found {}", given.name, expected, found)

    def _reference(self, node: ir.Node, given: Given, attribute: ir.Attr) -> Steps:
        """Capture a reference to what the caller of a function gives, where one will do."""
        kind = self._kinds[given.expected] if isinstance(given.expected, str) else None
        thing = MISS if kind is None or not kind.of_reference else kind.of_reference(attribute)
        if thing is MISS:
            return self._fail(node, "{} is not known before it runs", given.name)
        return self._bind(str(given.expected), thing, node)

    def _capture_attribute(self, node: ir.Node, name: str, capture: str, found: object) -> Steps:
        kind = self._kinds[capture]
        if found is None:
            if kind.optional:
                return self._bind(capture, None, node)
            return self._fail(node, "has no {}", name)
        thing = node.attributes[name] if kind.says == ATTRIBUTE.says else kind.of_attribute(found)
        if thing is MISS:
            return self._fail(node, "{} is not {}", name, kind.says)
        return self._bind(capture, thing, node)

    def _elsewhere(self, link: Link) -> Steps:
        root = self._root
        assert root is not None
        found = roots_beside(link, self.nodes, self.captured)
        steps = [((link.root, node.outputs[0], root),) for node in found]
        return steps or self._fail(root, "found no further {} beside it", link.root.label)

    def _dtypes_fit(self, node: ir.Node) -> bool:
        for name, dtypes in self.rule.dtypes.items():
            value = self.captured[name]
            if isinstance(value, ir.Value) and value.dtype not in dtypes:
                text = "the element type of {} is {}"
                return bool(self._fail(node, text, name, value.dtype or "not known"))
        return True
