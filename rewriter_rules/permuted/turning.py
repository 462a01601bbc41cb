"""Nodes turned into another order of axes, with Transposes where the order changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.rewriter_rules.permuted.forms import Form, Order, form_of, perm_of, turn_constant
from vlmpass.rewriter_rules.permuted.region import Region, inverse

__all__ = ["turn"]


def turn(scope: Scope, region: Region, names: Names) -> None:
    """Compute the nodes of a region in its order; what others use of them is turned back.

    Args:
        scope: Where the nodes lie.
        region: What to turn.
        names: Where fresh names come from.
    """
    work = _Work(scope, region, names)
    for node in list(scope.graph):
        work.visit(node)


@dataclass
class _Work:
    """One region on its way.

    Attributes:
        given: The inputs, by node and position, that are turned already.
        turned: Values that no node of the region makes, with what they are turned.
    """

    scope: Scope
    region: Region
    names: Names
    given: set[tuple[ir.Node, int]] = field(default_factory=set)
    turned: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def visit(self, node: ir.Node) -> None:
        if node in self.region.nodes:
            self._turn(node)
        elif node not in self.region.left and perm_of(node, len(self.region.order)) is not None:
            self._transpose(node)
        elif any((node, at) in self.given for at in range(len(node.inputs))):
            self._restore(node)

    def _tape(self, node: ir.Node) -> Tape:
        hint = node.name or node.outputs[0].name or node.op_type
        return Tape(self.names, self.scope.opsets, hint, in_function=self.scope.in_function)

    def _splice(
        self, tape: Tape, node: ir.Node, pairs: Sequence[tuple[ir.Value, ir.Value]]
    ) -> None:
        splice(tape, [node], pairs, in_function=self.scope.in_function)

    def _form(self, node: ir.Node) -> Form:
        form = form_of(node, len(self.region.order), self.scope.opsets.get("", 1))
        assert form is not None
        return form

    def _built(
        self, tape: Tape, node: ir.Node, inputs: Sequence[ir.Value | None]
    ) -> Sequence[ir.Value]:
        changes = self._form(node).changes(self.region.order)
        attributes = {**node.attributes, **changes}
        return tape.node(node.op_type, inputs, attributes, outputs=len(node.outputs))

    def _turn(self, node: ir.Node) -> None:
        """Put a node on turned operands in the place of one of the region."""
        tape, form, inputs = self._tape(node), self._form(node), list(node.inputs)
        for at in form.constants:
            value = inputs[at]
            assert value is not None
            inputs[at] = turn_constant(tape, value, self.region.order)
        for at in form.turned:
            if (node, at) not in self.given:
                inputs[at] = self._operand(tape, inputs[at])
        pairs = []
        for old, new in zip(node.outputs, self._built(tape, node, inputs), strict=True):
            new.type = new.type or old.type
            self._give(old, new)
            if old.uses() or old.is_graph_output():
                pairs.append((old, tape.Transpose(new, perm=inverse(self.region.order))))
        self._splice(tape, node, pairs)

    def _give(self, old: ir.Value, new: ir.Value) -> None:
        """Let those that take a value turned have it so."""
        for use in list(old.uses()):
            if self._takes_turned(use.node, use.idx):
                use.node.replace_input_with(use.idx, new)
                self.given.add((use.node, use.idx))

    def _takes_turned(self, user: ir.Node, index: int) -> bool:
        if user in self.region.nodes:
            return index in self._form(user).turned
        if user in self.region.takers:
            return index == 0
        wants = user.graph is self._graph and perm_of(user) == self.region.order
        return wants and user not in self.region.left

    @property
    def _graph(self) -> ir.Graph:
        graph = self.scope.graph
        return graph.graph if isinstance(graph, ir.Function) else graph

    def _operand(self, tape: Tape, value: ir.Value | None) -> ir.Value:
        """Return a value that comes as it is, by a new Transpose."""
        assert value is not None
        if value not in self.turned:
            self.turned[value] = tape.Transpose(value, perm=self.region.order)
        return self.turned[value]

    def _transpose(self, node: ir.Node) -> None:
        """Let a Transpose go on from what it is given, and give on what is wanted turned."""
        (value,), (old,), perm = node.inputs, node.outputs, perm_of(node)
        assert value is not None
        assert perm is not None
        tape, given, order = self._tape(node), (node, 0) in self.given, self.region.order
        if given:
            perm = tuple(inverse(order)[axis] for axis in perm)
        if node in self.region.makers:
            both = tuple(perm[axis] for axis in order)
            self._give(old, _transposed(tape, value, both))
        new = _transposed(tape, value, perm) if given or tape.nodes else old
        if not given and perm == order:
            new = self.turned.setdefault(value, new)
        if new is not old:
            self._splice(tape, node, [(old, new)])

    def _restore(self, node: ir.Node) -> None:
        """Let a node that takes the turned axes away work on a turned operand."""
        tape = self._tape(node)
        new = self._built(tape, node, node.inputs)
        self._splice(tape, node, list(zip(node.outputs, new, strict=True)))


def _transposed(tape: Tape, value: ir.Value, perm: Order) -> ir.Value:
    return value if perm == tuple(range(len(perm))) else tape.Transpose(value, perm=perm)
