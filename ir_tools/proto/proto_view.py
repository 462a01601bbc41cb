"""A model as a protobuf whose tensors are replaced on the way, the model itself left alone.

onnx_ir serialises whatever has the attributes it asks for, so that a thin view over a graph, with
other tensors in it, is enough: nothing is cloned and no weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError, VlmpassError
from vlmpass.ir_tools.graph.walk import holds_graphs, subgraphs

__all__ = [
    "UNKNOWN",
    "Declare",
    "Holder",
    "StandIn",
    "StandInAt",
    "graph_protos",
    "inline",
    "skeleton",
    "skeleton_by_place",
    "whole",
]

UNKNOWN = "vlmpass.unknown values"
"""Key in a graph's `meta` (not in files): what is said of names that nothing in it defines, as
`ValueInfoProto`s and `TensorAnnotation`s."""
StandIn = Callable[[ir.TensorProtocol], ir.TensorProtocol]
Holder = ir.Value | ir.Attr
"""What a tensor is in: the value of an initializer, or an attribute."""
StandInAt = Callable[[ir.TensorProtocol, Holder], ir.TensorProtocol]
Declare = Callable[[ir.Value], ir.Value]


def inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor under a name of its own that is serialised by value, wherever it lies."""
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(
            tensor.numpy().ravel().tolist(),
            shape=cast(ir.Shape, tensor.shape),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    return ir.LazyTensor(
        lambda: tensor,
        dtype=tensor.dtype,
        shape=cast(ir.Shape, tensor.shape),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


class _View:
    """Stands for an object of the IR; what it does not replace is the object's own."""

    def __init__(self, shown: object) -> None:
        self._shown = shown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shown, name)


class _NodeView(_View):
    def __init__(self, node: ir.Node, stand_in: StandInAt, declare: Declare | None) -> None:
        super().__init__(node)
        self.attributes = {
            name: _attribute(attribute, stand_in, declare)
            for name, attribute in node.attributes.items()
        }
        if declare is not None:
            self.outputs = [declare(value) for value in node.outputs]


class _GraphView(_View):
    """A graph or a function."""

    def __init__(
        self,
        graph: ir.Graph | ir.Function,
        stand_in: StandInAt,
        declare: Declare | None,
        *,
        inner: bool = True,
    ) -> None:
        super().__init__(graph)
        self._nodes = graph
        self._stand_in = stand_in
        self._declare = declare
        if isinstance(graph, ir.Function):
            self.attributes = {
                name: _attribute(attribute, stand_in, declare)
                for name, attribute in graph.attributes.items()
            }
        else:
            self.initializers = {
                name: _initializer(value, stand_in) for name, value in graph.initializers.items()
            }
        if declare is not None:
            self.outputs = [declare(value) for value in graph.outputs]
            if inner:
                self.inputs = [declare(value) for value in graph.inputs]

    def __iter__(self) -> Iterator[object]:
        for node in self._nodes:
            attributes = node.attributes.values()
            if self._declare is not None or any(map(_holds_more, attributes)):
                yield _NodeView(node, self._stand_in, self._declare)
            else:
                yield node


class _ModelView(_View):
    def __init__(self, model: ir.Model, stand_in: StandInAt, declare: Declare | None) -> None:
        super().__init__(model)
        self.graph = _GraphView(model.graph, stand_in, declare, inner=False)
        self.functions = {
            key: _GraphView(function, stand_in, declare)
            for key, function in model.functions.items()
        }


_TENSORS = (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _holds_more(attribute: ir.Attr) -> bool:
    held = attribute.type in (*_TENSORS, *_GRAPHS)
    return held and not attribute.is_ref() and attribute.value is not None


def _attribute(attribute: ir.Attr, stand_in: StandInAt, declare: Declare | None) -> ir.Attr:
    if not _holds_more(attribute):
        return attribute
    value: object
    if attribute.type == ir.AttributeType.TENSOR:
        value = stand_in(attribute.as_tensor(), attribute)
    elif attribute.type == ir.AttributeType.TENSORS:
        value = tuple(stand_in(tensor, attribute) for tensor in attribute.as_tensors())
    elif attribute.type == ir.AttributeType.GRAPH:
        value = _GraphView(attribute.as_graph(), stand_in, declare)
    else:
        value = tuple(_GraphView(graph, stand_in, declare) for graph in attribute.as_graphs())
    return ir.Attr(attribute.name, attribute.type, value, doc_string=attribute.doc_string)


def _initializer(value: ir.Value, stand_in: StandInAt) -> ir.Value:
    tensor = None if value.const_value is None else stand_in(value.const_value, value)
    shown = ir.Value(
        name=value.name,
        type=value.type,
        shape=value.shape,
        doc_string=value.doc_string,
        const_value=tensor,
    )
    shown.metadata_props.update(value.metadata_props)
    shown.meta.update(value.meta)
    return shown


def skeleton(model: ir.Model, stand_in: StandIn, declare: Declare | None = None) -> onnx.ModelProto:
    """Return the protobuf of a model with other tensors in it.

    Args:
        model: Any model; it is not changed.
        stand_in: Returns what is serialised in place of a tensor. It must return a new object,
            because serialising names it; `inline` wraps a tensor that is wanted as it is.
        declare: Returns a value of the same name with the type and shape to declare in place of a
            node output or an input of a subgraph or function. By default, its own.

    Raises:
        VlmpassError: A tensor cannot be computed, or something in the model has no protobuf form.
    """
    return skeleton_by_place(model, lambda tensor, _: stand_in(tensor), declare)


def skeleton_by_place(
    model: ir.Model, stand_in: StandInAt, declare: Declare | None = None
) -> onnx.ModelProto:
    """Return what `skeleton` does, where what stands for a tensor depends on what it is in.

    Args:
        model: Any model; it is not changed.
        stand_in: As for `skeleton`, given what holds the tensor too.
        declare: As for `skeleton`.

    Raises:
        VlmpassError: As for `skeleton`.
    """
    shown = cast(ir.Model, _ModelView(model, stand_in, declare))
    try:
        return whole(ir.serde.serialize_model(shown), model)
    except ir.serde.SerdeError as error:
        raise _unwrapped(error) from error


def _unwrapped(error: ir.serde.SerdeError) -> VlmpassError:
    """Return what went wrong while a model was serialised, which onnx_ir wraps once for each level.

    Where it fails to show what it was given, the error of that hides the first one as its context.

    Args:
        error: As onnx_ir raised it.
    """
    cause: BaseException = error
    while not isinstance(cause, VlmpassError) and (inner := cause.__cause__ or cause.__context__):
        cause = inner
    if isinstance(cause, VlmpassError):
        return cause
    return SaveError(f"the model cannot be written as a protobuf: {cause}")


def whole(proto: onnx.ModelProto, model: ir.Model) -> onnx.ModelProto:
    """Put into the protobuf of a model what onnx_ir leaves out when it serialises, and return it.

    That is the empty names at the end of a node's outputs, which count (a Split without sizes cuts
    into as many parts as it has outputs), and what a file says of values that no node makes, noted
    in `UNKNOWN` by whoever loaded it. Out goes the mention of a value of which nothing is said: one
    whose shape is known and whose type is not.
    """
    _complete(proto.graph, model.graph)
    for function_proto, function in zip(proto.functions, model.functions.values(), strict=True):
        _complete(function_proto, function.graph)
    return proto


def _complete(proto: onnx.GraphProto | onnx.FunctionProto, graph: ir.Graph) -> None:
    for node_proto, node in zip(proto.node, graph, strict=True):
        if node.outputs and node.outputs[-1].name == "":
            missing = len(node.outputs) - len(node_proto.output)
            node_proto.output.extend([""] * missing)
        if holds_graphs(node):
            for inner_proto, inner in zip(graph_protos(node_proto), subgraphs(node), strict=True):
                _complete(inner_proto, inner)
    for index in reversed(range(len(proto.value_info))):
        info = proto.value_info[index]
        if not (info.HasField("type") or info.doc_string or info.metadata_props):
            del proto.value_info[index]
    if unknown := graph.meta.get(UNKNOWN):
        known = {info.name for info in proto.value_info}
        known |= {name for node in proto.node for name in node.output}
        for each in unknown:
            if isinstance(each, onnx.TensorAnnotation) and isinstance(proto, onnx.GraphProto):
                proto.quantization_annotation.append(each)
            elif isinstance(each, onnx.ValueInfoProto) and each.name not in known:
                proto.value_info.append(each)


def graph_protos(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in the attributes of a node, in the order of `walk.subgraphs`."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
            yield attribute.g
        yield from attribute.graphs
