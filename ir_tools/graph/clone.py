"""A second model that shares nothing mutable with the first but the tensors themselves.

Unlike onnx_ir's `clone` it copies types as well (setting a value's dtype changes its type object in
place), takes graphs that are not in topological order, and leaves the collector alone meanwhile.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.ir_tools.system.collector import without_collector

__all__ = ["adopt", "captured", "clone", "duplicate", "excerpt", "instantiate"]


def _type(type_: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    if type(type_) is ir.TensorType:
        return ir.TensorType(type_.dtype, denotation=type_.denotation)
    return copy.deepcopy(type_)


class _Cloner:
    """Copies what it meets once.

    Args:
        values: What stands for values of the original from the start.
        bound: Attributes that references are resolved to, None to keep references.
    """

    def __init__(
        self,
        values: Mapping[ir.Value, ir.Value] | None = None,
        bound: Mapping[str, ir.Attr] | None = None,
    ) -> None:
        self._values = dict(values or {})
        self._bound = bound

    def value(self, value: ir.Value) -> ir.Value:
        new = self._values.get(value)
        if new is None:
            new = ir.Value(
                name=value.name,
                type=_type(value.type),
                shape=None if value.shape is None else value.shape.copy(),
                doc_string=value.doc_string,
                const_value=value.const_value,
            )
            if value.metadata_props:
                new.metadata_props.update(value.metadata_props)
            _copy_meta(value, new)
            self._values[value] = new
        return new

    def _attribute(self, attribute: ir.Attr) -> ir.Attr | None:
        if attribute.is_ref():
            return attribute if self._bound is None else self._resolve(attribute, self._bound)
        value: object
        if attribute.type == ir.AttributeType.GRAPH:
            value = self.graph(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            value = tuple(self.graph(graph) for graph in attribute.as_graphs())
        else:
            return attribute
        return ir.Attr(attribute.name, attribute.type, value, doc_string=attribute.doc_string)

    def _resolve(self, attribute: ir.Attr, bound: Mapping[str, ir.Attr]) -> ir.Attr | None:
        """Return what a reference stands for; None where the caller leaves it to the operator."""
        given = bound.get(attribute.ref_attr_name or "")
        if given is None:
            return None
        if given.is_ref():
            assert given.ref_attr_name is not None
            return ir.RefAttr(attribute.name, given.ref_attr_name, given.type)
        # A subgraph is copied for each use; what it captures lies around the call and is not.
        holder = ir.Node("", "Holder", [], [given])
        copied = _Cloner({value: value for value in captured(holder)})._attribute(given)
        assert copied is not None
        return ir.Attr(attribute.name, copied.type, copied.value, doc_string=attribute.doc_string)

    def _devices(self, node: ir.Node) -> tuple[ir.NodeDeviceConfiguration, ...]:
        return tuple(
            replace(
                each,
                sharding_specs=tuple(
                    spec if spec.value is None else replace(spec, value=self.value(spec.value))
                    for spec in each.sharding_specs
                ),
            )
            for each in node.device_configurations
        )

    def node(self, node: ir.Node) -> ir.Node:
        attributes = [self._attribute(attribute) for attribute in node.attributes.values()]
        new = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else self.value(value) for value in node.inputs],
            [attribute for attribute in attributes if attribute is not None],
            outputs=[self.value(value) for value in node.outputs],
            overload=node.overload,
            version=node.version,
            name=node.name,
            doc_string=node.doc_string,
            metadata_props=dict(node.metadata_props),
            device_configurations=self._devices(node) if node.device_configurations else (),
        )
        _copy_meta(node, new)
        return new

    def graph(self, graph: ir.Graph) -> ir.Graph:
        new = ir.Graph(
            [self.value(value) for value in graph.inputs],
            [self.value(value) for value in graph.outputs],
            nodes=[self.node(node) for node in graph],
            initializers=[self.value(value) for value in graph.initializers.values()],
            doc_string=graph.doc_string,
            opset_imports=dict(graph.opset_imports),
            name=graph.name,
            metadata_props=dict(graph.metadata_props),
        )
        _copy_meta(graph, new)
        return new

    def function(self, function: ir.Function) -> ir.Function:
        attributes = [self._attribute(each) for each in function.attributes.values()]
        return ir.Function(
            domain=function.domain,
            name=function.name,
            overload=function.overload,
            graph=self.graph(function.graph),
            attributes=[attribute for attribute in attributes if attribute is not None],
        )


def captured(node: ir.Node) -> list[ir.Value]:
    """Return the values from outside that the graphs in a node's attributes use, each once."""
    used: dict[ir.Value, None] = {}
    made: set[ir.Value] = set()
    pending = list(subgraphs(node))
    while pending:
        graph = pending.pop()
        made.update(graph.inputs, graph.initializers.values())
        used.update(dict.fromkeys(graph.outputs))
        for inner in graph:
            made.update(inner.outputs)
            used.update(dict.fromkeys(value for value in inner.inputs if value is not None))
            pending.extend(subgraphs(inner))
    return [value for value in used if value not in made]


def _copy_meta(
    old: ir.Value | ir.Node | ir.Graph | ir.Model, new: ir.Value | ir.Node | ir.Graph | ir.Model
) -> None:
    if old.meta:
        new.meta.update(old.meta)


@without_collector
def clone(model: ir.Model) -> ir.Model:
    """Return a copy of a model; tensors are shared, everything else is new.

    Graphs out of order, values without a producer and duplicate names are copied as they are.
    """
    new = ir.Model(
        _Cloner().graph(model.graph),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=[_Cloner().function(function) for function in model.functions.values()],
        metadata_props=dict(model.metadata_props),
        device_configurations=model.device_configurations,
    )
    _copy_meta(model, new)
    return new


def duplicate(node: ir.Node) -> ir.Node:
    """Return a copy of a node with subgraphs, in no graph yet, with the same inputs.

    Sizes that have names in the subgraphs may be others in each copy: they are unknown there.
    """
    kept = [*captured(node), *(value for value in node.inputs if value is not None)]
    copied = _Cloner({value: value for value in kept}).node(node)
    for graph in subgraphs(copied):
        for value in _values_of(graph):
            if value.shape is not None and not value.shape.is_static():
                sizes = (size if isinstance(size, int) else None for size in value.shape)
                value.shape = ir.Shape(list(sizes))
    return copied


def _values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what a graph and those in it take and make."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
        for inner in subgraphs(node):
            yield from _values_of(inner)


def excerpt(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    initializers: Sequence[ir.Value],
) -> ir.Model:
    """Return some nodes of the main graph as a model of their own.

    Args:
        model: It is not changed; the copy shares its tensors and functions.
        nodes: In an order in which they can run.
        inputs: What they take from elsewhere.
        outputs: What of them is wanted.
        initializers: The weights they use.
    """
    cloner = _Cloner()
    graph = ir.Graph(
        [cloner.value(value) for value in inputs],
        [cloner.value(value) for value in outputs],
        nodes=[cloner.node(node) for node in nodes],
        initializers=[cloner.value(value) for value in initializers],
        opset_imports=dict(model.graph.opset_imports),
        name=model.graph.name,
    )
    return ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))


def instantiate(
    function: ir.Function, call: ir.Node
) -> tuple[list[ir.Node], list[ir.Value | None]]:
    """Copy the body of a function for one call of it.

    Args:
        function: The function; attributes it refers to come from the call, else its defaults.
        call: The node that calls it, with at most as many inputs and outputs.

    Returns:
        The nodes, in no graph yet, and for each output of the call the value that stands for it:
        of one of the nodes, or an input of the call, None where that is absent. Inputs that the
        call leaves out are absent in the nodes.
    """
    absent = ir.Value()
    given = [*call.inputs, *(None for _ in function.inputs[len(call.inputs) :])]
    values = {
        formal: absent if actual is None else actual
        for formal, actual in zip(function.inputs, given, strict=True)
    }
    bound = {**function.attributes, **call.attributes}
    defaults = {
        name: each for name, each in bound.items() if each.value is not None or each.is_ref()
    }
    cloner = _Cloner(values, defaults)
    nodes = [cloner.node(node) for node in function]
    for use in list(absent.uses()):
        use.node.replace_input_with(use.idx, None)
        present = [index for index, value in enumerate(use.node.inputs) if value is not None]
        use.node.resize_inputs(max(present, default=-1) + 1)
    outputs = [cloner.value(value) for value in function.outputs[: len(call.outputs)]]
    return nodes, [None if value is absent else value for value in outputs]


def adopt(model: ir.Model, other: ir.Model) -> None:
    """Make a model object hold what another one holds; the other is not used afterwards."""
    model.graph = other.graph
    model.functions.clear()
    model.functions.update(other.functions)
    model.ir_version = other.ir_version
    model.producer_name = other.producer_name
    model.producer_version = other.producer_version
    model.domain = other.domain
    model.model_version = other.model_version
    model.doc_string = other.doc_string
    model.device_configurations = other.device_configurations
    for mine, theirs in ((model.metadata_props, other.metadata_props), (model.meta, other.meta)):
        mine.clear()
        mine.update(theirs)
