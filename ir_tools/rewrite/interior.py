"""Which matched nodes go, which stay, and where the replacement of several roots is put."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.rewrite.match import Match
from vlmpass.ir_tools.rewrite.pattern import Capture
from vlmpass.ir_tools.rewrite.rule import Declined

__all__ = ["Order", "leaving", "make_way"]


def _outside(node: ir.Node, gone: dict[ir.Node, None]) -> ir.Value | None:
    """Return an output that is used by something that does not go."""
    for output in node.outputs:
        if output.is_graph_output() or any(use.node not in gone for use in output.uses()):
            return output
    return None


def _held(match: Match, staying: Sequence[ir.Node]) -> set[ir.Node]:
    """Return the nodes that may stay: those declared so, and what these compute from."""
    held = {match.nodes[op] for op in match.rule.plan.ops if op.stays and op in match.nodes}
    held |= {node for node, way in match.passed.items() if isinstance(way.inner, Capture)}
    held &= set(staying)
    pending = list(held)
    while pending:
        for value in pending.pop().inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer in staying and producer not in held:
                held.add(producer)
                pending.append(producer)
    return held


def leaving(match: Match) -> list[ir.Node] | Declined:
    """Return the nodes a match removes, operands before users and the first root last.

    Args:
        match: A successful match, before anything is built from it.

    Returns:
        The nodes, or why they cannot go: a value inside is used elsewhere.
    """
    if len(match.nodes) == 1 and not match.passed:
        return match.roots()
    gone = dict.fromkeys(match.roots())
    staying = [node for node in match.matched() if node not in gone]
    while True:
        free = [node for node in staying if _outside(node, gone) is None]
        if not free:
            break
        gone.update(dict.fromkeys(free))
        staying = [node for node in staying if node not in gone]
    held = _held(match, staying) if staying else set()
    stuck = [node for node in staying if node not in held]
    if stuck:
        # The cause is what something outside uses, not what another node here stays for.
        inside = dict.fromkeys([*gone, *stuck])
        return _why_not(next(node for node in stuck if _outside(node, inside)), inside)
    return list(gone)[::-1]


def _why_not(node: ir.Node, gone: dict[ir.Node, None]) -> Declined:
    value = _outside(node, gone)
    assert value is not None
    if value.is_graph_output():
        return Declined("{} inside the match is an output of the graph", (value,))
    user = next(use.node for use in value.uses() if use.node not in gone)
    return Declined("{} is also used by {} ({})", (value, user, user.op_type))


class Order:
    """Comparable places of nodes in their graphs; numbered when first asked for."""

    def __init__(self) -> None:
        self._places: dict[ir.Node, tuple[int, ...]] = {}
        self._numbered: set[ir.Graph | ir.Function] = set()

    def of(self, node: ir.Node) -> tuple[int, ...]:
        """Return where a node stands; a later node has a greater place."""
        graph = node.graph
        assert graph is not None
        if graph not in self._numbered or node not in self._places:
            self._numbered.add(graph)
            self._places.update((each, (at,)) for at, each in enumerate(graph))
        return self._places[node]

    def replaced(self, old: ir.Node, new: Sequence[ir.Node]) -> None:
        """Give nodes that stand where another one stood places in between."""
        place = self._places.pop(old, None)
        if place is None:
            return
        for index, node in enumerate(new):
            self._places[node] = place if len(new) == 1 else (*place, index)


def make_way(
    roots: Sequence[ir.Node], gone: Sequence[ir.Node], order: Order
) -> Sequence[ir.Node] | Declined:
    """Let one place follow all operands and precede all users of several roots.

    Users of an earlier root that stand before the last one move behind it. Nothing moves when it
    is declined.

    Args:
        roots: The nodes whose outputs are replaced.
        gone: All nodes that go.
        order: Where nodes stand.

    Returns:
        The nodes that go, the one at that place last, or why there is no such place.
    """
    roots = sorted(roots, key=order.of)
    anchor = roots[-1]
    graph, limit = anchor.graph, order.of(anchor)
    assert graph is not None
    moved: dict[ir.Node, None] = {}
    direct = [output for root in roots for output in root.outputs]
    pending = list(direct)
    while pending:
        value = pending.pop()
        for user, _ in value.uses():
            if user.graph is not graph:
                return Declined("{} is used inside {}'s subgraph", (roots[0], user))
            if user in gone and value not in direct:
                return Declined("one of its roots depends on another, through {}", (user,))
            if user not in gone and user not in moved and order.of(user) < limit:
                moved[user] = None
                pending.extend(user.outputs)
    late = sorted(moved, key=order.of)
    if late:
        graph.insert_after(anchor, late)
        order.replaced(anchor, [anchor, *late])
    return [*(node for node in gone if node is not anchor), anchor]
