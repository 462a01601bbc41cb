"""Which nodes are a part, and which values cross its borders."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.clone import captured
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import holds_graphs
from vlmpass.ir_tools.run.segments import is_repeated
from vlmpass.ir_tools.system.listed import listed, meant

__all__ = ["Selection", "between", "closed", "partition", "taken_by"]


@dataclass
class Selection:
    """Nodes of the main graph that make a model of their own.

    Attributes:
        nodes: In graph order; Constants and Casts of weights may be in others too.
        inputs: What they take that others make or the user gives, in the order of use.
        outputs: What others take, and what of the model's outputs they make.
        initializers: The weights that they use.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    inputs: dict[ir.Value, None] = field(default_factory=dict)
    outputs: dict[ir.Value, None] = field(default_factory=dict)
    initializers: dict[ir.Value, None] = field(default_factory=dict)


def taken_by(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return what a node takes, its subgraphs included, each value once."""
    given = (value for value in node.inputs if value is not None)
    return tuple(dict.fromkeys((*given, *(captured(node) if holds_graphs(node) else ()))))


def partition(model: ir.Model, place: Mapping[ir.Node, int], number: int) -> list[Selection]:
    """Return the parts of a model, in one walk over it.

    Args:
        model: Its main graph is what is cut.
        place: The part of every node that has one. A Constant, or a Cast of a weight, that has none
            is in every part that takes it.
        number: How many parts there are.
    """
    parts = [_Part(place, index) for index in range(number)]
    nodes: list[dict[ir.Node, None]] = [{} for _ in parts]
    for node in model.graph:
        home = place.get(node)
        for value in taken_by(node):
            maker = value.producer()
            made_in = None if maker is None else place.get(maker)
            if made_in is not None and made_in != home:
                parts[made_in].selection.outputs[value] = None
            if home is not None:
                nodes[home].update(parts[home].take(value))
        if home is not None:
            nodes[home][node] = None
    for value in model.graph.outputs:
        maker = value.producer()
        made_in = None if maker is None else place.get(maker)
        if made_in is not None:
            parts[made_in].selection.outputs[value] = None
    for part, found in zip(parts, nodes, strict=True):
        part.selection.nodes = list(found)
    return [part.selection for part in parts]


@dataclass
class _Part:
    place: Mapping[ir.Node, int]
    index: int
    selection: Selection = field(default_factory=Selection)

    def take(self, value: ir.Value) -> Iterator[tuple[ir.Node, None]]:
        """Note what a value is to this part; yield the nodes that it brings along."""
        maker = value.producer()
        if maker is not None:
            home = self.place.get(maker)
            if home is None and is_repeated(value):
                for below in taken_by(maker):
                    yield from self.take(below)
                yield maker, None
            elif home != self.index:
                self.selection.inputs[value] = None
            return
        if value.is_initializer():
            self.selection.initializers[value] = None
        if not value.is_initializer() or value.is_graph_input():
            self.selection.inputs[value] = None


def closed(model: ir.Model, chosen: Collection[ir.Node]) -> Selection:
    """Return some nodes of the main graph, with what they take and what others take of them."""
    (found,) = partition(model, dict.fromkeys(chosen, 0), 1)
    _add_unused(found)
    return found


def _add_unused(selection: Selection) -> None:
    """Make outputs of what nobody takes, where nothing else comes out."""
    if not selection.outputs:
        ends = (value for node in selection.nodes for value in node.outputs if not value.uses())
        selection.outputs.update(dict.fromkeys(value for value in ends if value.name))


def between(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> Selection:
    """Return what computes some values from others.

    Args:
        model: The values are of its main graph.
        inputs: Names of what is given instead of computed, weights among them; without any, what
            the outputs need of the model's inputs.
        outputs: Names of what is wanted; without any, the model's outputs that depend on the
            inputs.

    Raises:
        ModelError: A name is unknown or of no such value; an input is missing or not needed.
    """
    known = _named(model)
    starts = dict.fromkeys(_find(model, known, name) for name in inputs)
    ends = [_find(model, known, name) for name in outputs] or _reached(model, starts)
    for value in ends:
        if value in starts or value.producer() is None:
            what = "an input" if value in starts or not value.is_initializer() else "a weight"
            raise ModelError(f"'{value.name}' is {what} itself", remedy="name another output")
    chosen, met = _needed(ends, starts)
    found = Selection([node for node in model.graph if node in chosen])
    found.outputs = dict.fromkeys(ends)
    for value in met:
        if value in starts:
            continue
        if value.is_initializer():
            found.initializers[value] = None
        if value.is_graph_input():
            found.inputs[value] = None
    if starts:
        _hold_inputs(starts, found, met, chosen)
        optional = [value for value in found.inputs if value in found.initializers]
        found.inputs = {**starts, **dict.fromkeys(optional)}
    return found


def _hold_inputs(
    starts: Iterable[ir.Value],
    found: Selection,
    met: Collection[ir.Value],
    chosen: Collection[ir.Node],
) -> None:
    """Refuse inputs that are too few, too many, or computed all the same."""
    ends = listed(f"'{value.name}'" for value in found.outputs)
    missing = [value for value in found.inputs if value not in found.initializers]
    if missing:
        names = ",".join(str(value.name) for value in missing)
        raise ModelError(f"{ends} also needs {listed(names.split(','))}", remedy=_add(names))
    for value in starts:
        if value not in met:
            raise ModelError(f"{ends} does not need '{value.name}'", remedy="leave it out")
        maker = value.producer()
        if maker is not None and maker in chosen:
            others = [each.name for each in maker.outputs if each in met and each is not value]
            raise ModelError(
                f"'{value.name}' is computed all the same, by {name_node(maker)}",
                remedy=f"name {listed(others)} as an input too",
            )


def _add(names: str) -> str:
    return f"add {names} to the inputs"


def _named(model: ir.Model) -> dict[str, ir.Value]:
    graph = model.graph
    found = {str(value.name): value for value in (*graph.inputs, *graph.initializers.values())}
    found.update((str(v.name), v) for node in graph for v in node.outputs if v.name)
    return found


def _find(model: ir.Model, known: Mapping[str, ir.Value], name: str) -> ir.Value:
    if name in known:
        return known[name]
    inner = next((node for node in model.graph if _makes_inside(node, name)), None)
    if inner is not None:
        raise ModelError(
            f"'{name}' is inside a subgraph of {name_node(inner)}",
            remedy="name values of the main graph",
        )
    raise ModelError(f"the main graph has no value '{name}'", remedy=meant(name, known))


def _makes_inside(node: ir.Node, name: str) -> bool:
    if not holds_graphs(node):
        return False
    from vlmpass.ir_tools.graph.walk import subgraphs

    return any(
        any(value.name == name for inner in graph for value in inner.outputs)
        or any(_makes_inside(inner, name) for inner in graph)
        for graph in subgraphs(node)
    )


def _reached(model: ir.Model, starts: Collection[ir.Value]) -> list[ir.Value]:
    """Return the model's outputs that depend on some values; all of them without any."""
    if not starts:
        return [value for value in model.graph.outputs if value.producer() is not None]
    touched = set(starts)
    for node in model.graph:
        if any(value in touched for value in taken_by(node)):
            touched.update(node.outputs)
    found = [v for v in model.graph.outputs if v in touched and v not in starts]
    if not found:
        raise ModelError("no output depends on these inputs", remedy="name the outputs")
    return found


def _needed(
    ends: Sequence[ir.Value], starts: Collection[ir.Value]
) -> tuple[set[ir.Node], dict[ir.Value, None]]:
    """Return the nodes that compute values from others, and every value that these meet."""
    chosen: set[ir.Node] = set()
    met: dict[ir.Value, None] = {}
    pending = list(reversed(ends))
    while pending:
        value = pending.pop()
        if value in met:
            continue
        met[value] = None
        maker = value.producer()
        if maker is not None and value not in starts and maker not in chosen:
            chosen.add(maker)
            pending.extend(reversed(taken_by(maker)))
    return chosen, met
