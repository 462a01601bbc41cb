"""Choosing which constants to keep in place of the nodes that compute them, and doing it.

A constant is kept where it is small, or where its bytes are paid for by stored tensors that go away
with it. The choice runs backwards: a node goes if everything that uses it goes or is served.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import add_constant, has_constants_of, remove_dead, replace_value
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.passes.folding.constants import SMALL, Candidate, Constant, Constants

__all__ = ["Choice", "choose", "replace"]


@dataclass(frozen=True)
class Choice:
    """A value that becomes a stored constant.

    Attributes:
        value: The output of a candidate node.
        constant: What it holds.
        candidate: The node and its scope.
    """

    value: ir.Value
    constant: Constant
    candidate: Candidate


@dataclass
class _Round:
    """One backward run with an assumption about which stored tensors will not go away."""

    constants: Constants
    growth: float
    pinned: frozenset[ir.Value]
    going: set[ir.Node] = field(default_factory=set)
    paid: dict[ir.Value, float] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)

    def run(self) -> None:
        for candidate in reversed(self.constants.candidates):
            wanted = [
                Choice(value, constant, candidate)
                for value, constant in zip(candidate.node.outputs, candidate.outputs, strict=True)
                if self._needed(value)
            ]
            if self._affordable(wanted):
                self.going.add(candidate.node)
                self.choices.extend(reversed(wanted))

    def _needed(self, value: ir.Value) -> bool:
        return value.is_graph_output() or any(use.node not in self.going for use in value.uses())

    def _affordable(self, wanted: list[Choice]) -> bool:
        if any(not self._sensible(choice) for choice in wanted):
            return False
        before = dict(self.paid)
        for choice in wanted:
            size = choice.constant.tensor.nbytes
            if size > SMALL and not self._pay(size, choice.constant.roots):
                self.paid = before
                return False
        return True

    def _sensible(self, choice: Choice) -> bool:
        value, node = choice.value, choice.candidate.node
        if value.is_graph_output() and node.op_type == "Identity":
            return False  # a graph output that is a constant has this form already
        if value.is_graph_output() and choice.constant.tensor.nbytes > SMALL:
            return False
        scope, dtype = choice.candidate.scope, choice.constant.tensor.dtype
        if _as_node(choice, self.constants.ir_version) and not has_constants_of(
            dtype, scope.opsets.get("", 1)
        ):
            return False
        unpacking = self.constants.unpacking
        return not (choice.constant.packed and any(use.node in unpacking for use in value.uses()))

    def _pay(self, size: float, roots: Iterable[ir.Value]) -> bool:
        """Charge bytes to stored tensors that go away."""
        for root in sorted(roots, key=lambda root: root.name or ""):
            if root in self.pinned:
                continue
            constant = self.constants[root]
            assert constant is not None
            left = constant.tensor.nbytes * self.growth - self.paid.get(root, 0)
            charge = min(size, max(left, 0))
            self.paid[root] = self.paid.get(root, 0) + charge
            size -= charge
        return size <= 0


def _pinned(constants: Constants, going: set[ir.Node]) -> frozenset[ir.Value]:
    """Return the stored tensors that stay in use when these nodes are gone."""
    roots = {
        root
        for candidate in constants.candidates
        for constant in candidate.outputs
        for root in constant.roots
    }
    return frozenset(
        root
        for root in roots
        if root.is_graph_output()
        or root.is_graph_input()
        or any(use.node not in going for use in root.uses())
    )


def choose(constants: Constants, growth: float) -> list[Choice]:
    """Return what to keep, in topological order.

    Args:
        constants: All of them, with their nodes.
        growth: Bytes a constant may have for each byte of the stored tensors it replaces.
    """
    going = {candidate.node for candidate in constants.candidates}
    pinned = _pinned(constants, going)
    while True:
        attempt = _Round(constants, growth, pinned)
        attempt.run()
        more = pinned | _pinned(constants, attempt.going)
        if more == pinned:
            return attempt.choices[::-1]
        pinned = more


def _as_node(choice: Choice, ir_version: int) -> bool:
    """Whether a constant must be a node: initializers are not welcome everywhere."""
    scope = choice.candidate.scope
    return scope.in_function or ir_version < 4 or choice.value.is_graph_output()


def replace(choices: Iterable[Choice], ir_version: int) -> bool:
    """Put the chosen constants in place of their nodes; True if there were any.

    A constant becomes an initializer of the same name. It becomes a Constant node where it is a
    graph output, in a function, and in a file too old for initializers that are no inputs.
    """
    replaced = []
    for choice in choices:
        node, value = choice.candidate.node, choice.value
        if not may_apply("fold", node.name or node.op_type):
            continue
        as_node = _as_node(choice, ir_version)
        new = add_constant(choice.constant.tensor, node, value.name or "", as_node=as_node)
        replace_value(value, new, fresh=True)
        replaced.append(node)
    remove_dead(replaced)
    return bool(replaced)
