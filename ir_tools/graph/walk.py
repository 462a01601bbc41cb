"""Every graph, node, value and tensor of a model, subgraphs and functions included."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import onnx_ir as ir

__all__ = [
    "Scope",
    "TensorSlot",
    "all_nodes",
    "all_values",
    "holds_graphs",
    "left_out_at_calls",
    "needed_among",
    "operands_first",
    "scopes",
    "subgraphs",
    "tensor_slots",
    "weight_bytes",
]

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_TENSORS = (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)


@dataclass(frozen=True)
class Scope:
    """One list of nodes and what holds for it.

    Attributes:
        graph: The graph or function whose nodes these are.
        owner: The outermost graph or function around it: where opsets are imported.
        depth: 0 for the owner itself, 1 for a subgraph of it, and so on.
    """

    graph: ir.Graph | ir.Function
    owner: ir.Graph | ir.Function
    depth: int

    @property
    def in_function(self) -> bool:
        """Whether this lies in a function, where initializers do not exist."""
        return isinstance(self.owner, ir.Function)

    @property
    def opsets(self) -> Mapping[str, int]:
        """Imported opset version by domain."""
        return self.owner.opset_imports

    @property
    def initializers(self) -> Mapping[str, ir.Value]:
        """The initializers of this scope by name; empty for a function."""
        return self.graph.initializers if isinstance(self.graph, ir.Graph) else {}


def holds_graphs(node: ir.Node) -> bool:
    """Return whether an attribute of a node is a graph; the quick way for most nodes."""
    attributes = node.attributes.data
    if attributes:
        for attribute in attributes.values():  # any() takes twice as long
            if attribute.type in _GRAPHS:
                return True
    return False


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs in the attributes of a node, in attribute order."""
    for attribute in node.attributes.data.values():
        if attribute.type not in _GRAPHS or attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        else:
            yield from attribute.as_graphs()


def _below(scope: Scope) -> Iterator[Scope]:
    yield scope
    for node in scope.graph:
        if node.attributes.data and holds_graphs(node):  # most have none: spare them the call
            for graph in subgraphs(node):
                yield from _below(Scope(graph, scope.owner, scope.depth + 1))


def scopes(model: ir.Model) -> Iterator[Scope]:
    """Yield the main graph, its subgraphs (parents first), then every function likewise."""
    yield from _below(Scope(model.graph, model.graph, 0))
    for function in model.functions.values():
        yield from _below(Scope(function, function, 0))


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node of the model; a node comes before the nodes of its subgraphs' scopes."""
    yield from _nodes_below(model.graph)
    for function in model.functions.values():
        yield from _nodes_below(function)


def _nodes_below(graph: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    """Yield what `scopes` would lead to, each list of nodes gone over once."""
    outer = []
    for node in graph:
        yield node
        if node.attributes.data and holds_graphs(node):
            outer.append(node)
    for node in outer:
        for inner in subgraphs(node):
            yield from _nodes_below(inner)


def all_values(model: ir.Model) -> Iterator[ir.Value]:
    """Yield every value once: inputs, initializers and node outputs of every scope."""
    yield from _values_below(model.graph)
    for function in model.functions.values():
        yield from _values_below(function)


def _values_below(graph: ir.Graph | ir.Function) -> Iterator[ir.Value]:
    inputs = list(graph.inputs)
    yield from inputs
    taken = {id(value) for value in inputs}
    for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
        if id(value) not in taken:
            yield value
    outer = []
    for node in graph:
        yield from node.outputs
        if node.attributes.data and holds_graphs(node):
            outer.append(node)
    for node in outer:
        for inner in subgraphs(node):
            yield from _values_below(inner)


def left_out_at_calls(model: ir.Model) -> set[ir.Value]:
    """Return the inputs of functions that some call leaves out: there, they are not to be read."""
    found: set[ir.Value] = set()
    pairs: list[tuple[ir.Value, ir.Value | None]] = []
    for node in all_nodes(model) if model.functions else ():
        function = model.functions.get(node.op_identifier())
        if function is not None:
            pairs += zip_longest(function.inputs, node.inputs[: len(function.inputs)])
    before = -1
    while before < len(found):  # a function may hand on what it was not given
        before = len(found)
        found.update(value for value, given in pairs if given is None or given in found)
    return found


@dataclass(slots=True, eq=False)
class TensorSlot:
    """A place in a model that holds a tensor, and the way to put another one there.

    Attributes:
        scope: The scope it lies in.
        tensor: What it holds now.
        value: The initializer's value, or the only output of a Constant node, else None.
        owner: Whose attribute it is in, None for an initializer.
        attribute: Which attribute that is.
        index: Which of the tensors of the attribute, None if it holds one alone.
    """

    scope: Scope
    tensor: ir.TensorProtocol
    value: ir.Value | None
    owner: ir.Node | ir.Function | None = None
    attribute: ir.Attr | None = None
    index: int | None = None

    @property
    def where(self) -> str:
        """For messages: the initializer's name, or node and attribute."""
        if self.attribute is None or self.owner is None:
            return f"initializer {self.value and self.value.name}"
        place = "" if self.index is None else f"[{self.index}]"
        return f"attribute {self.attribute.name} of {_label(self.owner)}{place}"

    def replace(self, new: ir.TensorProtocol) -> None:
        """Put another tensor there; dtype and shape may differ."""
        if self.attribute is None or self.owner is None:
            assert self.value is not None
            self.value.const_value = new
            return
        name, doc = self.attribute.name, self.attribute.doc_string
        if self.index is None:
            attribute = ir.AttrTensor(name, new, doc_string=doc)
        else:
            tensors = list(self.owner.attributes[name].as_tensors())
            tensors[self.index] = new
            attribute = ir.AttrTensors(name, tuple(tensors), doc_string=doc)
        self.owner.attributes[name] = attribute


def _attribute_slots(
    scope: Scope, owner: ir.Node | ir.Function, attribute: ir.Attr
) -> Iterator[TensorSlot]:
    if attribute.is_ref() or attribute.value is None:
        return
    if attribute.type == ir.AttributeType.TENSORS:
        for index, tensor in enumerate(attribute.as_tensors()):
            yield TensorSlot(scope, tensor, None, owner, attribute, index)
        return
    value = None
    if isinstance(owner, ir.Node) and owner.op_identifier()[:2] == ("", "Constant"):
        value = owner.outputs[0]
    yield TensorSlot(scope, attribute.as_tensor(), value, owner, attribute)


def _label(owner: ir.Node | ir.Function) -> str:
    if isinstance(owner, ir.Function):
        return f"function {owner.name}"
    return f"node {owner.name or owner.op_type}"


def tensor_slots(model: ir.Model) -> Iterator[TensorSlot]:
    """Yield every tensor of the model: initializers, attributes and defaults of attributes.

    Replacing the tensor of the slot just yielded is safe while iterating.
    """
    yield from _slots_below(Scope(model.graph, model.graph, 0))
    for function in model.functions.values():
        yield from _slots_below(Scope(function, function, 0))


def _slots_below(scope: Scope) -> Iterator[TensorSlot]:
    """Yield what `scopes` would lead to, each list of nodes gone over once."""
    for value in tuple(scope.initializers.values()):
        if value.const_value is not None:
            yield TensorSlot(scope, value.const_value, value)
    if isinstance(scope.graph, ir.Function):
        for attribute in tuple(scope.graph.attributes.values()):
            if attribute.type in _TENSORS:
                yield from _attribute_slots(scope, scope.graph, attribute)
    outer = []
    for node in scope.graph:
        attributes = node.attributes.data
        for attribute in tuple(attributes.values()) if attributes else ():
            if attribute.type in _TENSORS:
                yield from _attribute_slots(scope, node, attribute)
            elif attribute.type in _GRAPHS:
                outer.append(node)
    for node in dict.fromkeys(outer):
        for graph in subgraphs(node):
            yield from _slots_below(Scope(graph, scope.owner, scope.depth + 1))


def weight_bytes(model: ir.Model) -> int:
    """Return the bytes of every tensor of the model; none is read."""
    return sum(slot.tensor.nbytes for slot in tensor_slots(model))


def needed_among(values: Iterable[ir.Value | None], nodes: Collection[ir.Node]) -> set[ir.Node]:
    """Return those of some connected nodes that values are computed by."""
    pending = list(values)
    needed: set[ir.Node] = set()
    while pending:
        value = pending.pop()
        node = None if value is None else value.producer()
        if node is not None and node in nodes and node not in needed:
            needed.add(node)
            pending.extend(node.inputs)
    return needed


def operands_first(
    value: ir.Value,
    operands: Callable[[ir.Value], Iterable[ir.Value]],
    done: Container[ir.Value],
) -> Iterator[ir.Value]:
    """Yield what a value is computed from and then the value, however deep the graph is.

    Args:
        value: Where to start.
        operands: What must come before a value.
        done: What came already; the caller adds each value that it gets.
    """
    pending = [value]
    while pending:
        top = pending[-1]
        missing = [] if top in done else [each for each in operands(top) if each not in done]
        if missing:
            pending += missing
            continue
        if top not in done:
            yield top
        pending.pop()
