"""Edits that keep a graph whole: taking the place of a value, and removing what nobody uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.ir_tools.graph.symbols import refined
from vlmpass.ir_tools.graph.walk import Scope, subgraphs
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import spell

__all__ = [
    "OutputPlaces",
    "add_constant",
    "constant_node",
    "constant_value",
    "has_constants_of",
    "is_used",
    "may_add_integers",
    "may_be_given_out",
    "remove_dead",
    "remove_initializer",
    "remove_unused_constant",
    "replace_value",
]


def replace_value(
    old: ir.Value,
    new: ir.Value,
    *,
    fresh: bool,
    copy: Callable[[ir.Value], ir.Value] | None = None,
) -> ir.Value:
    """Let a value take the place of another one everywhere, of which nothing is lost.

    A value that nothing is known by yet takes the name, and so does one that becomes a graph
    output: what a graph gives out keeps its name and the shape that it declares. What was said of
    the name (doc string, metadata) goes with it. What is known of the old value's type and shape
    is known of the new one; only what a graph declares of its inputs stays as it is, and what is
    known in a subgraph holds where that runs, and not of a value from around it.

    Args:
        old: The value that goes away; it may be a graph output.
        new: What stands for it from now on.
        fresh: Whether nothing is known by the name of `new` yet.
        copy: Returns a copy of a value, made by a node of the graph, for a graph output that `new`
            cannot be: an input, an initializer, a value from around the graph, or another output.

    Returns:
        What stands for the old value: `new` or its copy.
    """
    gives_out = old.is_graph_output()
    if not new.is_graph_input():
        new.type = new.type or old.type
        if new.shape is None and new.graph in (None, old.graph):
            new.shape = old.shape
    if gives_out and copy is not None and not may_be_given_out(new, old):
        new, fresh = copy(new), True
        new.type, new.shape = old.type, old.shape
    if not fresh and not gives_out:
        old.replace_all_uses_with(new)
        return new
    if gives_out and old.shape is not None:
        new.shape = old.shape
    new.shape = refined(old.shape, new.shape)
    name = old.name or new.name
    if gives_out and old.graph is not None:
        outputs = old.graph.outputs
        while old in outputs:  # in C, and a loop of onnx_ir's over thousands of outputs is not
            outputs[outputs.index(old)] = new
    old.replace_all_uses_with(new)
    old.name = None
    new.name = name
    new.doc_string = old.doc_string or new.doc_string
    new.metadata_props.update(old.metadata_props)
    return new


class OutputPlaces:
    """Where values are among what graphs give out, each graph gone over once.

    onnx_ir goes over all outputs of a graph for each value, which takes long where there are
    thousands. Outputs are replaced through it, or by nothing while it is in use.
    """

    def __init__(self) -> None:
        self._places: dict[ir.Graph | ir.Function, dict[ir.Value, list[int]]] = {}

    def of(self, value: ir.Value, graph: ir.Graph | ir.Function) -> list[int]:
        """Return where a value is among the outputs of a graph."""
        places = self._places.get(graph)
        if places is None:
            places = self._places[graph] = {}
            for place, output in enumerate(graph.outputs):
                places.setdefault(output, []).append(place)
        return places.get(value, [])

    def replace_uses(self, old: ir.Value, new: ir.Value) -> None:
        """Let a value stand wherever another one does, among what its graph gives out, too."""
        graph = old.graph
        if old.is_graph_output() and graph is not None:
            for place in self.of(old, graph):
                graph.outputs[place] = new
                self._places[graph].setdefault(new, []).append(place)
            self._places[graph].pop(old, None)
        old.replace_all_uses_with(new)


def may_be_given_out(value: ir.Value, old: ir.Value) -> bool:
    """Whether a value may become a graph's output, in another one's place and under its name."""
    here, producer = old.producer(), value.producer()
    return (
        here is not None
        and producer is not None
        and producer.graph is here.graph
        and not value.is_graph_output()
    )


def add_constant(
    tensor: ir.TensorProtocol, anchor: ir.Node, name: str, *, as_node: bool
) -> ir.Value:
    """Add a constant to the graph of a node.

    Args:
        tensor: What it holds; it takes the name.
        anchor: A node of the graph; a Constant node is put before it.
        name: The value's name, which must be free.
        as_node: Make a Constant node, as functions, old files and graph outputs need.
    """
    graph = anchor.graph
    assert graph is not None
    tensor.name = name
    if not as_node:
        value = constant_value(tensor, name)
        graph.register_initializer(value)
        return value
    whole = [value.name for value in anchor.outputs] == [name]  # it stands for all of the anchor
    label = anchor.name if whole or not anchor.name else f"{name}/Constant"
    node = constant_node(tensor, name, label)
    node.metadata_props.update(anchor.metadata_props)
    graph.insert_before(anchor, node)
    return node.outputs[0]


def has_constants_of(dtype: ir.DataType, opset: int) -> bool:
    """Whether Constant nodes may hold an element type at an opset: before 9, floats alone."""
    found = in_force("", "Constant", opset)
    return found is not None and spell(ir.TensorType(dtype)) in found.outputs[0].types


def may_add_integers(scope: Scope, ir_version: int) -> bool:
    """Whether a graph can be given integer constants, as initializers or as Constant nodes."""
    initializers = not scope.in_function and ir_version >= 4
    return initializers or has_constants_of(ir.DataType.INT64, scope.opsets.get("", 1))


def constant_value(tensor: ir.TensorProtocol, name: str) -> ir.Value:
    """Return a value that holds a tensor, typed and shaped as it, in no graph yet."""
    shape = ir.Shape(tensor.shape.numpy())
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)


def constant_node(tensor: ir.TensorProtocol, name: str, node_name: str | None) -> ir.Node:
    """Return a Constant node, in no graph yet, whose output has a name and the tensor's type.

    Args:
        tensor: Its value.
        name: What its output is called.
        node_name: What it is called itself; None for no name.
    """
    attributes = [ir.AttrTensor("value", tensor)]
    node = ir.Node("", "Constant", (), attributes, num_outputs=1, name=node_name)
    (value,) = node.outputs
    value.name, value.type = name, ir.TensorType(tensor.dtype)
    value.shape = ir.Shape(tensor.shape.numpy())
    return node


def remove_dead(nodes: Iterable[ir.Node], removals: Removals | None = None) -> int:
    """Remove nodes that nobody uses, then what only they used, initializers included.

    Args:
        nodes: Where to start; nodes still in use stay.
        removals: Takes them out of their graphs, at once by default.

    Returns:
        How many nodes were removed.
    """
    waiting = Removals() if removals is None else removals
    pending = [each for each in dict.fromkeys(nodes) if each not in waiting]
    gone: dict[ir.Node, ir.Graph] = {}
    while pending:
        # Whole rounds, because asking a value for its users takes time for each of them.
        dead = [
            each for each in pending if each not in gone and not any(map(is_used, each.outputs))
        ]
        gone.update((each, each.graph) for each in dead if each.graph is not None)
        freed = dict.fromkeys(value for each in dead for value in _detach(each))
        unused = [value for value in freed if not is_used(value)]
        for value in unused:
            if value.is_initializer() and not value.is_graph_input():
                remove_initializer(value)
        producers = [value.producer() for value in unused]
        makers = dict.fromkeys(each for each in producers if each is not None)
        pending = [each for each in makers if each not in waiting]
    by_graph: dict[ir.Graph, list[ir.Node]] = {}
    for node, graph in gone.items():
        by_graph.setdefault(graph, []).append(node)
    for graph, dead in by_graph.items():
        waiting.wait(graph, dead)
    if removals is None:
        waiting.finish()
    return len(gone)


def remove_initializer(value: ir.Value) -> None:
    """Remove an initializer that nobody uses from its graph."""
    graph, name = value.graph, value.name
    assert graph is not None
    assert name is not None
    del graph.initializers[name]


def remove_unused_constant(value: ir.Value) -> None:
    """Remove an initializer, or a node and what only it used, if nobody uses the value."""
    producer = value.producer()
    if producer is not None:
        remove_dead([producer])
    elif value.is_initializer() and not value.is_graph_input() and not is_used(value):
        remove_initializer(value)


def is_used(value: ir.Value) -> bool:
    """Whether a node uses a value, or its graph gives it out."""
    return bool(value.uses()) or value.is_graph_output()


def _detach(node: ir.Node) -> list[ir.Value]:
    """Take a node and those of its subgraphs off what they use, and return that."""
    inputs = dict.fromkeys(value for value in node.inputs if value is not None)
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    for graph in subgraphs(node):
        inputs.update(dict.fromkeys(graph.outputs))
        graph.outputs.clear()
        for inner in graph:
            inputs.update(dict.fromkeys(_detach(inner)))
    return list(inputs)
