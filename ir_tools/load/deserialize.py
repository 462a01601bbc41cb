"""From a vetted ModelProto to IR, with what onnx_ir leaves behind carried over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.walk import all_values, scopes
from vlmpass.ir_tools.proto.proto_view import UNKNOWN

__all__ = ["deserialized"]


def deserialized(proto: onnx.ModelProto) -> ir.Model:
    """Return the model as IR; the proto must have been vetted.

    Raises:
        ModelError: onnx_ir cannot hold it.
    """
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # whatever onnx_ir raises means that it cannot hold this model
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ModelError(f"the model cannot be held as IR: {reason[:200]}") from error
    _restore_function_inputs(model, proto)
    inside = _told_by_graph(model)
    _restore_inside(proto, inside)
    for scope, graph in zip(scopes(model), _graphs(proto), strict=True):
        if isinstance(graph, onnx.GraphProto) and isinstance(scope.graph, ir.Graph):
            _restore_interface(scope.graph, graph)
            # ONNX Runtime reads graphs without a name; onnx's checker does not.
            scope.graph.name = scope.graph.name or "graph"
        _note_unknown(scope.graph, graph, inside)
        if scope.depth == 0:
            _rename_default_domain(scope.owner.opset_imports)
    _open_negative_extents(model)
    return model


def _open_negative_extents(model: ir.Model) -> None:
    """Make extents below 0 unknown, which is what exporters mean and runtimes make of them."""
    if any(_has_negative(value.shape) for value in (*model.graph.inputs, *model.graph.outputs)):
        for value in all_values(model):
            if value.shape is not None and _has_negative(value.shape):
                value.shape = _opened(value.shape)


def _is_negative(dim: int | ir.SymbolicDim) -> bool:
    return isinstance(dim, int) and dim < 0


def _has_negative(shape: ir.Shape | None) -> bool:
    return shape is not None and any(_is_negative(dim) for dim in shape)


def _opened(shape: ir.Shape) -> ir.Shape:
    return ir.Shape(
        [None if _is_negative(dim) else dim for dim in shape],
        denotations=[shape.get_denotation(axis) for axis in range(len(shape))],
    )


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yield graphs, subgraphs and functions in the order of `scopes`."""
    for top in (proto.graph, *proto.functions):
        yield from _below(top)


def _below(
    graph: onnx.GraphProto | onnx.FunctionProto,
) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
                yield from _below(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for inner in attribute.graphs:
                    yield from _below(inner)


def _restore_interface(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    """What is said of an input or output in another place, too: onnx_ir keeps one."""
    interface = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    for info in (*proto.input, *proto.value_info):
        value = interface.get(info.name)
        if value is None:
            continue
        other = ir.serde.deserialize_value_info_proto(info, None)
        for key, said in other.metadata_props.items():
            value.metadata_props.setdefault(key, said)
        value.doc_string = value.doc_string or other.doc_string
        if value.type is None or value.dtype == ir.DataType.UNDEFINED:
            value.type = other.type or value.type
        elif other.type is not None:
            value.type.denotation = value.type.denotation or other.type.denotation
        if value.is_graph_input() and value.is_graph_output():
            value.shape = _known_too(value.shape, other.shape)
        value.shape = _fuller(value.shape, other.shape)


def _told_by_graph(model: ir.Model) -> Mapping[str, ir.Value]:
    """Return the values of functions by the names under which the main graph tells of them.

    It did before FunctionProto had a place for it. Names of all kinds may hold slashes.
    """
    return {
        f"{function.domain}::{function.name}/{value.name}": value
        for function in model.functions.values()
        for values in (function.inputs, *(node.outputs for node in function))
        for value in values
    }


def _restore_inside(proto: onnx.ModelProto, inside: Mapping[str, ir.Value]) -> None:
    """What the main graph tells of values of functions: onnx_ir reads names without slashes."""
    for info in proto.graph.value_info:
        value = inside.get(info.name)
        if value is not None and value.type is None:
            ir.serde.deserialize_value_info_proto(info, value)


def _note_unknown(
    graph: ir.Graph | ir.Function,
    proto: onnx.GraphProto | onnx.FunctionProto,
    inside: Mapping[str, ir.Value],
) -> None:
    """Note what is said of values that nothing here defines, for the day it is written again."""
    known = {value.name for value in graph.inputs}
    known |= {value.name for node in graph for value in node.outputs}
    if isinstance(graph, ir.Graph):
        known |= graph.initializers.keys()
    unknown = [
        info for info in proto.value_info if info.name not in known and info.name not in inside
    ]
    if isinstance(proto, onnx.GraphProto):
        annotations = proto.quantization_annotation
        unknown += [each for each in annotations if each.tensor_name not in known]
    if unknown:
        graph.meta[UNKNOWN] = unknown


def _known_too(shape: ir.Shape | None, other: ir.Shape | None) -> ir.Shape | None:
    """Return a shape with the sizes that only the other one states: an output of an input's."""
    if shape is None or other is None or len(shape) != len(other):
        return shape
    unknown = [isinstance(dim, ir.SymbolicDim) and dim.value is None for dim in shape]
    dims = [b if open_ else a for a, b, open_ in zip(shape, other, unknown, strict=True)]
    return ir.Shape(dims, [shape.get_denotation(axis) for axis in range(len(shape))])


def _fuller(shape: ir.Shape | None, other: ir.Shape | None) -> ir.Shape | None:
    if shape is None or other is None or len(shape) != len(other):
        return shape if shape is not None else other
    denotations = [
        shape.get_denotation(axis) or other.get_denotation(axis) for axis in range(len(shape))
    ]
    return ir.Shape(list(shape), denotations=denotations)


def _restore_function_inputs(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Types of function inputs, which onnx_ir reads for the nodes' outputs only."""
    for function in proto.functions:
        infos = {info.name: info for info in function.value_info}
        key = (function.domain, function.name, function.overload)
        for value in model.functions[key].inputs:
            if value.name in infos:
                ir.serde.deserialize_value_info_proto(infos[value.name], value)


def _rename_default_domain(imports: dict[str, int]) -> None:
    """Import the default domain as "", which is how onnx_ir names it on nodes."""
    if "ai.onnx" in imports:
        imports[""] = imports.pop("ai.onnx")
