"""From a vetted ModelProto to IR, with what onnx_ir leaves behind carried over."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.walk import all_values
from vlmpass.ir_tools.load.graph_reader import GraphReader, Read
from vlmpass.ir_tools.proto.graph_writer import UNKNOWN

__all__ = ["deserialized"]


def deserialized(proto: onnx.ModelProto) -> ir.Model:
    """Return the model as IR; the proto must have been vetted.

    Raises:
        ModelError: onnx_ir cannot hold it.
    """
    reader = GraphReader()
    try:
        model = reader.model(proto)
    except Exception as error:  # whatever onnx_ir raises means that it cannot hold this model
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ModelError(f"the model cannot be held as IR: {reason[:200]}") from error
    inside = _told_by_graph(model)
    _restore_inside(proto, inside)
    for read in reader.done:
        if isinstance(read.graph, ir.Graph):
            _restore_interface(read)
            # ONNX Runtime reads graphs without a name; onnx's checker does not.
            read.graph.name = read.graph.name or "graph"
        _note_unknown(read, inside)
    _rename_default_domain(model.graph.opset_imports)
    for function in model.functions.values():
        _rename_default_domain(function.opset_imports)
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


def _restore_interface(read: Read) -> None:
    """What is said of an input or output in another place, too: onnx_ir keeps one."""
    inputs = {info.name: info for info in read.proto.input}
    for value in dict.fromkeys((*read.graph.inputs, *read.graph.outputs)):
        for infos in (inputs, read.infos):
            info = infos.get(value.name or "")
            if info is not None:
                _restore(value, info)


def _restore(value: ir.Value, info: onnx.ValueInfoProto) -> None:
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
    for info in proto.graph.value_info if inside else ():
        value = inside.get(info.name)
        if value is not None and value.type is None:
            ir.serde.deserialize_value_info_proto(info, value)


def _note_unknown(read: Read, inside: Mapping[str, ir.Value]) -> None:
    """Note what is said of values that nothing here defines, for the day it is written again."""
    names, proto = read.names, read.proto
    unknown: list[onnx.ValueInfoProto | onnx.TensorAnnotation] = []
    if not names.keys() >= read.infos.keys():
        stated = (info for info in proto.value_info if info.name not in names)
        unknown += (info for info in stated if info.name not in inside)
    if isinstance(proto, onnx.GraphProto):
        annotations = proto.quantization_annotation
        unknown += (each for each in annotations if each.tensor_name not in names)
    if unknown:
        read.graph.meta[UNKNOWN] = unknown


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


def _rename_default_domain(imports: dict[str, int]) -> None:
    """Import the default domain as "", which is how onnx_ir names it on nodes."""
    if "ai.onnx" in imports:
        imports[""] = imports.pop("ai.onnx")
