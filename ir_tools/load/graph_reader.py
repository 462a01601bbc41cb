"""A vetted protobuf read into the graphs of onnx_ir, in one walk.

It does what `onnx_ir.from_proto` does, in half the time: values of one type share its shape, which
cannot be changed, small tensors are arrays at once, and what `vet` refused is not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, cast

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.load.small_tensors import SmallTensors

__all__ = ["GraphReader", "Read"]

_GRAPH, _GRAPHS = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS
_TENSOR = onnx.AttributeProto.TENSOR
_PLAIN = frozenset(
    (
        onnx.AttributeProto.INT,
        onnx.AttributeProto.FLOAT,
        onnx.AttributeProto.STRING,
        onnx.AttributeProto.INTS,
        onnx.AttributeProto.FLOATS,
        onnx.AttributeProto.STRINGS,
    )
)
_ANNOTATION = "quant_parameter_tensor_names"
"""Where in the `meta` of a value onnx_ir keeps its quantization annotation, and writes it from."""
_Infos = Mapping[str, onnx.ValueInfoProto]
_Annotations = Mapping[str, onnx.TensorAnnotation]


class Read(NamedTuple):
    """A graph, subgraph or function, and what it was read from.

    Attributes:
        graph: As IR.
        proto: As it stands in the model.
        names: The values that it defines.
        infos: What it says of values.
    """

    graph: ir.Graph | ir.Function
    proto: onnx.GraphProto | onnx.FunctionProto
    names: Mapping[str, ir.Value]
    infos: _Infos


class GraphReader:
    """Reads one model.

    Attributes:
        done: Everything read that holds nodes; what is within another comes before it.
    """

    def __init__(self) -> None:
        self.done: list[Read] = []
        self._types: dict[bytes, tuple[ir.DataType, ir.Shape | None] | None] = {}
        self._attributes: dict[bytes, ir.Attr] = {}
        self._small = SmallTensors()
        self._scopes: list[dict[str, ir.Value]] = []
        self._devices: Mapping[str, Any] = {}

    def model(self, proto: onnx.ModelProto) -> ir.Model:
        """Return the model."""
        devices = tuple(map(ir.serde.deserialize_model_configuration, proto.configuration))
        self._devices = {each.name: each for each in devices}
        graph = self._graph(proto.graph)
        graph.opset_imports.update(ir.serde.deserialize_opset_import(proto.opset_import))
        return ir.Model(
            graph,
            ir_version=proto.ir_version,
            producer_name=_stated(proto, "producer_name"),
            producer_version=_stated(proto, "producer_version"),
            domain=_stated(proto, "domain"),
            model_version=_stated(proto, "model_version"),
            doc_string=_stated(proto, "doc_string"),
            functions=[self._function(each) for each in proto.functions],
            metadata_props=ir.serde.deserialize_metadata_props(proto.metadata_props),
            device_configurations=devices,
        )

    def _graph(self, proto: onnx.GraphProto) -> ir.Graph:
        notes = {each.tensor_name: each for each in proto.quantization_annotation}
        infos = {info.name: info for info in proto.value_info}
        inputs = [self._value(info.name, info, notes) for info in proto.input]
        names = {info.name: value for info, value in zip(proto.input, inputs, strict=True)}
        initializers = [self._initializer(each, names, infos, notes) for each in proto.initializer]
        self._scopes.append(names)
        nodes = self._nodes(proto.node, infos, notes)
        self._scopes.pop()
        outputs = [names[info.name] for info in proto.output]
        for value, info in zip(outputs, proto.output, strict=True):
            self._describe(value, info)
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=nodes,
            initializers=initializers,
            doc_string=_stated(proto, "doc_string"),
            name=_stated(proto, "name"),
            metadata_props=ir.serde.deserialize_metadata_props(proto.metadata_props),
        )
        self.done.append(Read(graph, proto, names, infos))
        return graph

    def _function(self, proto: onnx.FunctionProto) -> ir.Function:
        infos = {info.name: info for info in proto.value_info}
        names = self._taken(proto, infos)
        inputs = list(names.values())
        self._scopes.append(names)
        nodes = self._nodes(proto.node, infos, {})
        self._scopes.pop()
        graph = ir.Graph(
            inputs,
            [names[name] for name in proto.output],
            nodes=nodes,
            doc_string=_stated(proto, "doc_string"),
            opset_imports=ir.serde.deserialize_opset_import(proto.opset_import),
            name=f"{proto.name}_{proto.domain}__{proto.overload}" if proto.overload else "",
            metadata_props=ir.serde.deserialize_metadata_props(proto.metadata_props),
        )
        without_default = (
            ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in proto.attribute
        )
        attributes = [*map(self._attribute, proto.attribute_proto), *without_default]
        function = ir.Function(
            proto.domain, proto.name, proto.overload, graph=graph, attributes=attributes
        )
        self.done.append(Read(function, proto, names, infos))
        return function

    def _taken(self, proto: onnx.FunctionProto, infos: _Infos) -> dict[str, ir.Value]:
        """Return the inputs of a function, with their types: onnx_ir reads those of nodes only."""
        return {name: self._value(name, infos.get(name), {}) for name in proto.input}

    def _value(self, name: str, info: onnx.ValueInfoProto | None, notes: _Annotations) -> ir.Value:
        value = ir.Value(name=name)
        if info is not None:
            self._describe(value, info)
        if name in notes:
            _annotate(value, notes[name])
        return value

    def _describe(self, value: ir.Value, info: onnx.ValueInfoProto) -> None:
        """Give a value the type and shape, and whatever else is said of it."""
        key = info.type.SerializeToString()
        known = self._types.get(key)
        if known is None and key not in self._types:
            known = self._types[key] = _plain_type(info.type)
        if known is None:
            ir.serde.deserialize_value_info_proto(info, value)
            return
        value.type, value.shape = ir.TensorType(known[0]), known[1]
        value.doc_string = info.doc_string or None
        if info.metadata_props:
            value.metadata_props.update({each.key: each.value for each in info.metadata_props})

    def _initializer(
        self,
        proto: onnx.TensorProto,
        names: dict[str, ir.Value],
        infos: _Infos,
        notes: _Annotations,
    ) -> ir.Value:
        tensor, name = self._tensor(proto), proto.name
        value = names.get(name)
        if value is not None:  # an input whose default it is
            value.const_value = tensor
            return value
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor)
        value.shape = cast(ir.Shape, tensor.shape)
        if name in infos:
            self._describe(value, infos[name])
            if value.shape is not None and _is_same(value.shape, tensor.shape):
                value.shape = cast(ir.Shape, tensor.shape)
        if name in notes:
            _annotate(value, notes[name])
        names[name] = value
        return value

    def _tensor(self, proto: onnx.TensorProto) -> ir.TensorProtocol:
        small = self._small.tensor(proto)
        return ir.serde.deserialize_tensor(proto) if small is None else small

    def _nodes(
        self, protos: Iterable[onnx.NodeProto], infos: _Infos, notes: _Annotations
    ) -> list[ir.Node]:
        """Return nodes; what they make is there first, for subgraphs may read it out of order."""
        names, protos = self._scopes[-1], list(protos)
        made = [
            [self._value(name, infos.get(name), notes) for name in node.output] for node in protos
        ]
        names.update((value.name, value) for value in chain.from_iterable(made) if value.name)
        return [self._node(node, outputs) for node, outputs in zip(protos, made, strict=True)]

    def _node(self, proto: onnx.NodeProto, outputs: list[ir.Value]) -> ir.Node:
        names = self._scopes[-1]
        inputs = [(names.get(name) or self._outer(name)) if name else None for name in proto.input]
        attributes, entries = proto.attribute, proto.metadata_props
        return ir.Node(
            proto.domain,
            proto.op_type,
            inputs,
            [self._attribute(each) for each in attributes] if attributes else (),
            overload=proto.overload,
            outputs=outputs,
            name=proto.name,
            doc_string=proto.doc_string or None,
            metadata_props=ir.serde.deserialize_metadata_props(entries) if entries else None,
            device_configurations=self._placed(proto) if proto.device_configurations else (),
        )

    def _outer(self, name: str) -> ir.Value:
        return next(names[name] for names in reversed(self._scopes) if name in names)

    def _placed(self, proto: onnx.NodeProto) -> tuple[Any, ...]:
        """Return on which devices a node runs, in the words of the model's configurations."""
        visible = {name: value for names in self._scopes for name, value in names.items()}
        found = []
        for each in proto.device_configurations:
            placed = ir.serde.deserialize_node_device_configuration(each, values=visible)
            known = self._devices.get(each.configuration_id)
            found.append(placed if known is None else replace(placed, configuration=known))
        return tuple(found)

    def _attribute(self, proto: onnx.AttributeProto) -> ir.Attr:
        """Return an attribute; equal ones that hold numbers or text are one, as in copies."""
        kind = proto.type
        if kind in _PLAIN:
            key = proto.SerializeToString()
            known = self._attributes.get(key)
            if known is None:
                known = self._attributes[key] = ir.serde.deserialize_attribute(proto)
            return known
        if proto.ref_attr_name or kind not in (_TENSOR, _GRAPH, _GRAPHS):
            return ir.serde.deserialize_attribute(proto)
        if kind == _TENSOR:
            value: object = self._tensor(proto.t)
        elif kind == _GRAPH:
            value = self._graph(proto.g)
        else:
            value = [self._graph(each) for each in proto.graphs]
        type_, doc = ir.AttributeType(kind), _stated(proto, "doc_string")
        return ir.Attr(proto.name, type_, value, doc_string=doc)


def _stated(proto: Any, field: str) -> Any:
    return getattr(proto, field) if proto.HasField(field) else None


def _annotate(value: ir.Value, note: onnx.TensorAnnotation) -> None:
    entries = note.quant_parameter_tensor_names
    value.meta[_ANNOTATION] = ir.serde.deserialize_metadata_props(entries)


def _plain_type(proto: onnx.TypeProto) -> tuple[ir.DataType, ir.Shape | None] | None:
    """Return what values of a type may share; None if onnx_ir is to read each of them."""
    tensor = proto.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("elem_type") or proto.denotation or any(d.denotation for d in dims):
        return None
    shape = ir.serde.deserialize_type_proto_for_shape(proto)
    return ir.DataType(tensor.elem_type), shape


def _is_same(shape: ir.Shape, other: object) -> bool:
    """Whether one shape can stand for another: nothing is said of its axes but their sizes."""
    return shape == other and not any(map(shape.get_denotation, range(len(shape))))
