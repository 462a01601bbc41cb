"""What is checked on a ModelProto before it becomes IR: nothing may be dropped on the way.

onnx_ir drops some fields without a word, warns about others and goes on, and invents values for
names that nothing defines. Whatever it would lose is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.ir_versions import DEVICES_SINCE
from vlmpass.ir_tools.load.calls import vet_calls
from vlmpass.ir_tools.load.infos import vet_annotations, vet_infos, vet_passed_on, vet_type
from vlmpass.ir_tools.load.tensors import TensorVet, is_plain, refuse_repeated, refuse_unknown_type
from vlmpass.ir_tools.operators.schema import needed_graphs

__all__ = ["vet"]

_Attribute = onnx.AttributeProto
_SPARSE = (_Attribute.SPARSE_TENSOR, _Attribute.SPARSE_TENSORS)


def vet(proto: onnx.ModelProto, tensors: TensorVet) -> None:
    """Refuse what is no sound model, and what onnx_ir cannot hold.

    Args:
        proto: The model.
        tensors: Checks every tensor and remembers what onnx_ir forgets about it.

    Raises:
        ModelError: Naming the thing, the reason and the remedy.
    """
    _vet_model(proto)
    walk = _Walk(tensors, proto)
    walk.graph(proto.graph, [], "the graph")
    seen = set()
    for function in proto.functions:
        key = (function.domain, function.name, function.overload)
        name = f"function {function.domain}::{function.name}"
        if key in seen:
            raise ModelError(f"{name} is defined twice", remedy="remove one of them")
        seen.add(key)
        walk.function(function, name)
    vet_calls(proto)


def _vet_model(proto: onnx.ModelProto) -> None:
    if not proto.HasField("graph") or proto.ir_version < 1:
        what = "graph" if proto.ir_version > 0 else "ir_version"
        raise ModelError(f"the model has no {what}", remedy="is this an ONNX model?")
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"the model has IR version {proto.ir_version}; the installed onnx reads up to "
            f"{onnx.IR_VERSION}",
            remedy="install a newer onnx",
        )
    if proto.training_info:
        raise ModelError(
            "the model has training_info, which cannot be kept",
            remedy="remove it from the model (del model.training_info[:])",
        )
    if proto.configuration and proto.ir_version < DEVICES_SINCE:
        raise _too_old("the model has a configuration of devices", proto)
    refuse_repeated(proto.metadata_props, "the model")
    _vet_opsets(proto.opset_import, "the model")


def _too_old(what: str, proto: onnx.ModelProto) -> ModelError:
    return ModelError(
        f"{what}, which IR version {proto.ir_version} does not have",
        remedy=f"set the ir_version to {DEVICES_SINCE}, or remove it",
    )


def _vet_opsets(imports: Iterable[onnx.OperatorSetIdProto], where: str) -> None:
    versions: dict[str, int] = {}
    for opset in imports:
        if not 0 <= opset.version < _OPSETS_END:
            raise ModelError(
                f"{where} imports opset {opset.version} of domain {opset.domain or 'ai.onnx'}, "
                "and no such opset can be",
                remedy="export the model again",
            )
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        if versions.setdefault(domain, opset.version) != opset.version:
            raise ModelError(
                f"{where} imports opset {versions[domain]} and {opset.version} of domain "
                f"{domain or 'ai.onnx'}",
                remedy="keep the one that its nodes were made for",
            )
    if not versions:
        raise ModelError(f"{where} imports no opset", remedy="add opset_import to it")


class _Walk:
    """Walks graphs with the names visible in each."""

    def __init__(self, tensors: TensorVet, model: onnx.ModelProto) -> None:
        self._tensors = tensors
        self._model = model
        self._sound: set[bytes] = set()  # attributes: many nodes have few

    def graph(self, graph: onnx.GraphProto, outer: list[set[str]], where: str) -> None:
        if graph.sparse_initializer:
            raise ModelError(
                f"{where} has a sparse initializer, {graph.sparse_initializer[0].values.name}, "
                "which cannot be kept",
                remedy="store it as a dense one",
            )
        inputs = [info.name for info in graph.input]
        names = _distinct(inputs, f"an input of {where}")
        initializers = [tensor.name for tensor in graph.initializer]
        names |= _distinct(initializers, f"an initializer of {where}")
        for tensor in graph.initializer:
            if not is_plain(tensor):  # most are
                self._tensors.check(tensor, f"initializer {tensor.name}")
        refuse_repeated(graph.metadata_props, where)
        vet_annotations(graph.quantization_annotation, where)
        for infos in (graph.input, graph.output, graph.value_info):
            vet_infos(infos, where)
        vet_passed_on(graph, where)
        self._nodes(graph.node, names, outer, where)
        for info in graph.output:
            if info.name not in names:
                outside = any(info.name in scope for scope in outer)
                raise ModelError(
                    f"output {info.name or '(no name)'} of {where} is made by nothing in it",
                    remedy="put an Identity there" if outside else "export the model again",
                )

    def function(self, function: onnx.FunctionProto, where: str) -> None:
        _vet_opsets(function.opset_import, where)
        names = _distinct(function.input, f"an input of {where}")
        refuse_repeated(function.metadata_props, where)
        vet_infos(function.value_info, where)
        attributes = [*function.attribute, *(each.name for each in function.attribute_proto)]
        _distinct(attributes, f"an attribute of {where}")
        for attribute in function.attribute_proto:
            self._attribute(attribute, [names], where)
        self._nodes(function.node, names, [], where)
        for name in function.output:
            if name not in names:
                named = name or "(no name)"
                raise ModelError(f"output {named} of {where} is made by nothing in it")

    def _nodes(
        self,
        nodes: Iterable[onnx.NodeProto],
        names: set[str],
        outer: list[set[str]],
        where: str,
    ) -> None:
        nodes = list(nodes)
        made = [name for node in nodes for name in node.output if name]
        defined = set(made)
        if len(defined) < len(made) or not defined.isdisjoint(names):
            raise _redefined(nodes, names, where)
        names |= defined
        read = {name for node in nodes for name in node.input if name} - names
        if unknown := read.difference(*outer):
            raise _undefined(nodes, unknown)
        scopes = [*outer, names]
        for node in nodes:
            if node.metadata_props:
                refuse_repeated(node.metadata_props, _title(node))
            if node.device_configurations:
                self._devices(node)
            if node.attribute:
                self._attributes(node, scopes)
            if needed_graphs(node.op_type):
                self._graphs(node)

    def _devices(self, node: onnx.NodeProto) -> None:
        if self._model.ir_version < DEVICES_SINCE:
            raise _too_old(f"{_title(node)} has a configuration of devices", self._model)
        for each in node.device_configurations:
            if not each.configuration_id:
                raise ModelError(f"{_title(node)} has a configuration of devices without a name")
            if not all(spec.tensor_name for spec in each.sharding_spec):
                raise ModelError(f"{_title(node)} has a sharding of no tensor")

    def _graphs(self, node: onnx.NodeProto) -> None:
        """Refuse an If, Loop or Scan without a graph that it runs: all that follows looks there."""
        for name in needed_graphs(node.op_type) if node.domain in ("", "ai.onnx") else ():
            held = [each for each in node.attribute if each.name == name]
            if [each.type for each in held] != [_Attribute.GRAPH]:
                raise ModelError(
                    f"{_title(node)} has no graph as its {name}", remedy="export the model again"
                )
            if held[0].ref_attr_name:
                raise ModelError(
                    f"{_title(node)} runs a graph that the call of a function gives, {name}, which "
                    "is not followed",
                    remedy="inline it first: onnx.inliner.inline_local_functions(model)",
                )

    def _attributes(self, node: onnx.NodeProto, scopes: list[set[str]]) -> None:
        seen = set()
        for attribute in node.attribute:
            if attribute.name in seen:
                raise ModelError(f"{_title(node)} has attribute {attribute.name} twice")
            seen.add(attribute.name)
            if attribute.type not in _PLAIN or attribute.ref_attr_name:
                self._attribute(attribute, scopes, _title(node))
                continue
            key = attribute.SerializeToString()
            if key not in self._sound:
                _vet_plain(attribute, node)
                if node.domain in _ONNX_DOMAINS and len(key) < _SHORT:
                    self._sound.add(key)

    def _attribute(
        self, attribute: onnx.AttributeProto, scopes: list[set[str]], where: str
    ) -> None:
        title = f"attribute {attribute.name or '(no name)'} of {where}"
        kind = attribute.type
        _vet_fields(attribute, title)
        if attribute.ref_attr_name:
            return
        if kind in _HELD_ALONE and not attribute.HasField(_FIELD_OF_KIND[kind]):
            raise ModelError(f"{title} has no value", remedy="export the model again")
        if kind in _HELD:
            self._held(attribute, scopes, title)
        elif kind in (_Attribute.TYPE_PROTO, _Attribute.TYPE_PROTOS):
            single = [attribute.tp] if attribute.HasField("tp") else []
            for type_ in (*single, *attribute.type_protos):
                vet_type(type_, title, known=True)
        elif kind in _SPARSE:
            raise ModelError(f"{title} is sparse, which cannot be kept", remedy="make it dense")
        elif kind in _STRINGS:
            _vet_text(attribute, title)
        elif kind == _Attribute.UNDEFINED:
            raise ModelError(f"{title} states no type", remedy="set its type field")

    def _held(self, attribute: onnx.AttributeProto, scopes: list[set[str]], title: str) -> None:
        kind = attribute.type
        if kind == _Attribute.TENSOR:
            self._tensors.check(attribute.t, title)
        elif kind == _Attribute.TENSORS:
            for index, tensor in enumerate(attribute.tensors):
                self._tensors.check(tensor, f"{title}[{index}]")
        elif kind == _Attribute.GRAPH:
            self.graph(attribute.g, scopes, title)
        else:
            for index, graph in enumerate(attribute.graphs):
                self.graph(graph, scopes, f"{title}[{index}]")


_OPSETS_END = 1 << 31
_SHORT = 256
"""Bytes of an attribute that is kept in mind once it is known to be sound."""
_TYPE_ATTRIBUTES = frozenset(
    {"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"}
)
"""What ONNX calls the attributes of its operators that name element types."""
_ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_HELD = (_Attribute.TENSOR, _Attribute.TENSORS, _Attribute.GRAPH, _Attribute.GRAPHS)
_HELD_ALONE = (_Attribute.TENSOR, _Attribute.GRAPH, _Attribute.TYPE_PROTO)
_STRINGS = (_Attribute.STRING, _Attribute.STRINGS)
_FIELD_OF_KIND = {
    _Attribute.FLOAT: "f",
    _Attribute.INT: "i",
    _Attribute.STRING: "s",
    _Attribute.TENSOR: "t",
    _Attribute.GRAPH: "g",
    _Attribute.SPARSE_TENSOR: "sparse_tensor",
    _Attribute.TYPE_PROTO: "tp",
    _Attribute.FLOATS: "floats",
    _Attribute.INTS: "ints",
    _Attribute.STRINGS: "strings",
    _Attribute.TENSORS: "tensors",
    _Attribute.GRAPHS: "graphs",
    _Attribute.SPARSE_TENSORS: "sparse_tensors",
    _Attribute.TYPE_PROTOS: "type_protos",
}
_PLAIN: Mapping[int, list[str]] = {
    kind: ["name", _FIELD_OF_KIND[kind], "type"]
    for kind in (
        _Attribute.FLOAT,
        _Attribute.INT,
        _Attribute.STRING,
        _Attribute.FLOATS,
        _Attribute.INTS,
        _Attribute.STRINGS,
    )
}
"""The fields of attributes that hold numbers or texts, in the order of their numbers."""


def _redefined(nodes: Iterable[onnx.NodeProto], names: set[str], where: str) -> ModelError:
    """Return what is wrong with nodes that make a value a second time, or one that is there."""
    seen = set(names)
    for node in nodes:
        for name in filter(None, node.output):
            if name in seen:
                return ModelError(
                    f"{_title(node)} defines {name}, which {where} has already",
                    remedy="give every value a name of its own",
                )
            seen.add(name)
    raise AssertionError("every name is made once")


def _undefined(nodes: Iterable[onnx.NodeProto], unknown: set[str]) -> ModelError:
    """Return what is wrong with nodes that read what is not there."""
    node, name = next((node, name) for node in nodes for name in node.input if name in unknown)
    return ModelError(
        f"{_title(node)} reads {name}, which nothing defines", remedy="export the model again"
    )


def _title(node: onnx.NodeProto) -> str:
    name = node.name or next((f"of {output}" for output in node.output if output), "")
    return f"node {name} ({node.op_type})" if name else f"a {node.op_type} node"


def _vet_plain(attribute: onnx.AttributeProto, node: onnx.NodeProto) -> None:
    """Refuse an attribute of numbers or texts that has other values, or none that can be kept."""
    title = f"attribute {attribute.name} of {_title(node)}"
    if attribute.name in _TYPE_ATTRIBUTES and node.domain in _ONNX_DOMAINS:
        refuse_unknown_type(attribute.i, title)
    names = [field.name for field, _ in attribute.ListFields()]
    if attribute.type in _STRINGS or names != _PLAIN[attribute.type]:
        _vet_fields(attribute, title)
        # Operators of others keep what they like in one string; onnx_ir holds it.
        if attribute.type != _Attribute.STRING or node.domain in _ONNX_DOMAINS:
            _vet_text(attribute, title)


def _vet_fields(attribute: onnx.AttributeProto, title: str) -> None:
    """Refuse an attribute that has other values than its type says."""
    if attribute.type == _Attribute.UNDEFINED and not attribute.ref_attr_name:
        return  # refused for that
    own = "" if attribute.ref_attr_name else _FIELD_OF_KIND.get(attribute.type, "")
    about = ("name", "type", "doc_string", "ref_attr_name", own)
    for field, _ in attribute.ListFields():
        if field.name not in about:
            kind = "a reference" if attribute.ref_attr_name else f"of type {attribute.type}"
            raise ModelError(
                f"{title} is {kind} but has a value in {field.name}", remedy="remove one of them"
            )


def _vet_text(attribute: onnx.AttributeProto, title: str) -> None:
    for text in (attribute.s, *attribute.strings):
        try:
            text.decode()
        except UnicodeDecodeError:
            raise ModelError(
                f"{title} is no valid ONNX: {text[:32]!r} is not UTF-8",
                remedy="store bytes as a tensor of type uint8",
            ) from None


def _distinct(names: Iterable[str], what: str) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise ModelError(f"{what} has no name", remedy="export the model again")
        if name in seen:
            raise ModelError(f"{name} is twice {what}", remedy="remove one of them")
        seen.add(name)
    return seen
