"""Which nodes to compute with their axes in another order, so that fewer Transposes are left.

Every node that works in any order is on one of two sides: as it is, or turned. A value whose
maker and users are on one side needs no Transpose, any other value needs one, however many users
it has. What comes out of a Transpose that the order undoes is there turned already, and a
Transpose into that order asks for it so. The fewest Transposes are then a cheapest split.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import is_constant
from vlmpass.ir_tools.graph.mincut import SINK, SOURCE, Nets
from vlmpass.rewriter_rules.permuted.forms import Form, Order, form_of, perm_of

__all__ = ["Region", "inverse", "region_of"]


@dataclass(frozen=True)
class Region:
    """Nodes to turn.

    Attributes:
        order: Into which order.
        nodes: The nodes.
        makers: Transposes whose results are to be had turned.
        takers: Transposes, and nodes that take the turned axes away, that work on turned values.
        left: Transposes to leave as they are, whatever happens around them.
        saved: How many Transposes fewer there are then.
    """

    order: Order
    nodes: frozenset[ir.Node]
    makers: frozenset[ir.Node]
    takers: frozenset[ir.Node]
    left: frozenset[ir.Node]
    saved: int


def inverse(order: Order) -> Order:
    """Return the order that undoes one."""
    return tuple(order.index(axis) for axis in range(len(order)))


def region_of(
    transposes: Sequence[ir.Node], order: Order, graph: ir.Graph | ir.Function, opset: int
) -> Region | None:
    """Return the nodes of a graph that are better turned into an order; None if there are none.

    Args:
        transposes: All Transposes of the graph.
        order: The order.
        graph: The graph.
        opset: In force there.
    """
    left: set[ir.Node] = set()
    for _ in range(_ROUNDS):
        search = _Search(order, graph, opset, frozenset(left))
        search.flood(transposes)
        cut, side = search.nets.split()
        if cut >= search.before:
            return None
        found = search.region(side, cut)
        clashes = [each for each in transposes if search.clashes(each, found)]
        if not clashes:
            return found
        left.update(clashes)
    return None


_ROUNDS = 8


@dataclass(frozen=True)
class _Either:
    """A user that gives the same, whichever side it takes its operand from."""

    node: ir.Node


@dataclass
class _Search:
    """The nets around the Transposes of one order.

    Attributes:
        forms: The nodes met that can be turned, and how.
        before: How many nets are cut as the graph is.
    """

    order: Order
    graph: ir.Graph | ir.Function
    opset: int
    left: frozenset[ir.Node]
    nets: Nets = field(default_factory=Nets)
    forms: dict[ir.Node, Form] = field(default_factory=dict)
    before: int = 0
    _undoing: set[ir.Node] = field(default_factory=set)
    _known: dict[ir.Node, Form | None] = field(default_factory=dict)

    def flood(self, transposes: Sequence[ir.Node]) -> None:
        """Make the nets of all values that a turned node could reach."""
        into, undoes = self.order, inverse(self.order)
        pending: list[ir.Value] = []
        for node in transposes:
            perm = perm_of(node, len(into))
            if perm is None or node in self.left:
                continue
            pending += [each for each in node.inputs if each is not None and perm == into]
            if perm == undoes:
                pending += node.outputs
                self._undoing.add(node)
        met: set[ir.Value] = set()
        while pending:
            value = pending.pop()
            if value in met:
                continue
            met.add(value)
            pins = list(dict.fromkeys(self._pins(value)))
            self.nets.add(pins)
            self.before += SOURCE in pins and len(pins) > 1
            for pin in pins:
                if isinstance(pin, ir.Node) and pin in self.forms:
                    form = self.forms[pin]
                    pending += [v for at in form.turned if (v := pin.inputs[at]) is not None]
                    pending += pin.outputs

    def region(self, side: Collection[Hashable], cut: int) -> Region:
        """Return what lies on the side of the order."""
        pins = frozenset(pin for pin in side if isinstance(pin, ir.Node))
        nodes = pins & self.forms.keys()
        takers = frozenset(pin.node for pin in side if isinstance(pin, _Either))
        makers = (pins - nodes) | (self._undoing - self.left)
        return Region(self.order, nodes, makers, takers, self.left, self.before - cut)

    def clashes(self, node: ir.Node, found: Region) -> bool:
        """Whether a Transpose would have to serve turned nodes from a turned node.

        It counts as free on either side alone, and not on both.
        """
        perm, value = perm_of(node, len(self.order)), node.inputs[0]
        if perm not in (self.order, inverse(self.order)) or node in self.left or value is None:
            return False
        if value.producer() not in found.nodes | found.makers:
            return False
        users = {use.node for use in node.outputs[0].uses()}
        return not users.isdisjoint(found.nodes | found.takers)

    def _pins(self, value: ir.Value) -> Iterator[Hashable]:
        maker = self._maker(value)
        yield maker
        if value.is_graph_output():
            yield SINK
        named = maker is SOURCE  # a value can be one output of the graph alone
        for use in value.uses():
            pin = self._user(use.node, use.idx)
            if pin is SOURCE and use.node.outputs[0].is_graph_output():
                pin, named = (_Either(use.node) if named else pin), True
            yield pin

    def _maker(self, value: ir.Value) -> Hashable:
        node = value.producer()
        if node is None or node.graph is not self.graph or is_constant(value):
            return SINK
        perm = perm_of(node, len(self.order))
        if perm is not None and node not in self.left:
            return SOURCE if perm == inverse(self.order) else node
        return SINK if self._form(node) is None else node

    def _user(self, node: ir.Node, index: int) -> Hashable:
        """Return on which side a user wants a value."""
        if node.graph is not self.graph:
            return SINK
        perm = perm_of(node, len(self.order))
        if perm is not None and node not in self.left:
            return SOURCE if perm == self.order else _Either(node)
        form = self._form(node)
        if form is None or index not in form.turned:
            return SINK
        return _Either(node) if form.removed is not None else node

    def _form(self, node: ir.Node) -> Form | None:
        if node not in self._known:
            form = form_of(node, len(self.order), self.opset)
            if form is not None and form.removed is not None and not form.restores(self.order):
                form = None
            self._known[node] = form
            if form is not None and form.removed is None:
                self.forms[node] = form
        return self._known[node]
