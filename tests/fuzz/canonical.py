"""What a model file says, without the ways in which it can be said: so that losses can be seen.

Two files say the same if they differ in: which field of a tensor holds its numbers, and where; the
order of value infos, metadata and imports; fields that hold what they hold when left out; the
spelling of the default domain; the name of a graph that has none.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf import text_format
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

_SORTED = {
    "value_info", "metadata_props", "opset_import", "quant_parameter_tensor_names",
    "quantization_annotation",
}  # fmt: skip
"""Fields whose order, and whether an entry is there twice, says nothing."""
_MEANT = {"dim_value", "simple_sharding"}
"""Fields that say something by being there, whatever they hold."""
_SAYS_NOTHING = {"type", "tensor_type"}
"""Messages that say nothing if they are empty, of values; attributes hold theirs under `tp`."""
_LINES = 12
_NUMERIC = frozenset(TensorProto.DataType.values()) - {TensorProto.STRING, TensorProto.UNDEFINED}
_PLACES = ("basepath", "location", "offset", "length")


def lost(source: onnx.ModelProto, written: onnx.ModelProto, folder: Path) -> str:
    """Return the lines that only one of two models has, nothing if they say the same.

    Args:
        source: A model.
        written: What was made of it.
        folder: Where both lie.
    """
    before, after = (Counter(_lines(canonical(model, folder))) for model in (source, written))
    gone = [f"- {line}" for line in (before - after).elements()]
    return "\n".join((gone + [f"+ {line}" for line in (after - before).elements()])[:_LINES])


def _lines(model: onnx.ModelProto) -> list[str]:
    text: str = text_format.MessageToString(model, print_unknown_fields=True)
    return [line.strip() for line in text.splitlines() if line.strip() not in ("}", "")]


def canonical(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return a copy that says the same in one way."""
    made = copy.deepcopy(model)
    _move_inside(made)
    for message in list(_messages(made)):
        _plain(message, folder)
    return made


def _move_inside(model: onnx.ModelProto) -> None:
    """Say of values in functions there what files below IR version 10 say in the main graph."""
    functions = {f"{each.domain}::{each.name}": each for each in model.functions}
    outside = []
    for info in model.graph.value_info:
        owner, _, name = info.name.rpartition("/")
        if owner in functions:
            functions[owner].value_info.add().CopyFrom(info)
            functions[owner].value_info[-1].name = name
        else:
            outside.append(copy.deepcopy(info))
    del model.graph.value_info[:]
    model.graph.value_info.extend(outside)


def _messages(message: Message) -> Iterator[Message]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _messages(inner)
    yield message


def _plain(message: Message, folder: Path) -> None:
    for field, value in message.ListFields():
        if isinstance(value, Message) and field.name in _SAYS_NOTHING and not value.ListFields():
            message.ClearField(field.name)
    if isinstance(message, TensorProto):
        _gather(message, folder)
    if isinstance(message, onnx.TensorShapeProto.Dimension) and message.dim_value < 0:
        message.ClearField("dim_value")  # what exporters write for an unknown one
    if isinstance(message, onnx.GraphProto):
        message.name = message.name or "graph"
        annotations = message.quantization_annotation
        said = [copy.deepcopy(each) for each in annotations if each.quant_parameter_tensor_names]
        del message.quantization_annotation[:]
        message.quantization_annotation.extend(said)
        _merge_infos(message)
        _pass_on(message)
    if isinstance(message, (onnx.GraphProto, onnx.FunctionProto)):
        _forget_known(message)
    if getattr(message, "domain", "") == "ai.onnx":
        message.domain = ""  # type: ignore[attr-defined]
    for field, value in message.ListFields():
        if isinstance(value, (str, bytes, int, float)):
            if value == field.default_value and field.name not in _MEANT:
                message.ClearField(field.name)
        elif field.name in _SORTED:
            inner = sorted(value, key=lambda each: each.SerializeToString(deterministic=True))
            kept = list(
                {each.SerializeToString(deterministic=True): each for each in inner}.values()
            )
            copies = [copy.deepcopy(each) for each in kept]
            message.ClearField(field.name)
            getattr(message, field.name).extend(copies)


def _forget_known(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Drop value infos that say nothing, or of an initializer what it says itself."""
    known = {
        each.name: helper.make_tensor_value_info(each.name, each.data_type, list(each.dims))
        for each in getattr(graph, "initializer", ())
    }
    kept = [
        copy.deepcopy(each)
        for each in graph.value_info
        if known.get(each.name) != each and len(each.ListFields()) > 1
    ]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _merge_infos(graph: onnx.GraphProto) -> None:
    """Say of an input or output what is said of it as an interior value, and there no longer.

    Where both state a type, that of the interface counts.
    """
    interface = [*graph.input, *graph.output]
    inside = []
    for info in graph.value_info:
        said = [each for each in interface if each.name == info.name]
        for value in said:
            _merge(value, info)
        inside += [] if said else [copy.deepcopy(info)]
    del graph.value_info[:]
    graph.value_info.extend(inside)


def _pass_on(graph: onnx.GraphProto) -> None:
    """Say of an output that is an input what is said of the input."""
    inputs = {each.name: each for each in graph.input}
    for value in graph.output:
        if value.name in inputs:
            _merge(inputs[value.name], value)
            _size(inputs[value.name], value)
            value.CopyFrom(inputs[value.name])


def _size(value: onnx.ValueInfoProto, info: onnx.ValueInfoProto) -> None:
    """Say of sizes that are open what another place says of them."""
    dims, others = value.type.tensor_type.shape.dim, info.type.tensor_type.shape.dim
    for dim, other in zip(dims, others, strict=False):
        if dim.WhichOneof("value") is None and len(dims) == len(others):
            dim.MergeFrom(other)


def _merge(value: onnx.ValueInfoProto, info: onnx.ValueInfoProto) -> None:
    if not value.HasField("type") and info.HasField("type"):
        value.type.CopyFrom(info.type)
    if info.type.tensor_type.HasField("shape") and not value.type.tensor_type.HasField("shape"):
        value.type.tensor_type.shape.CopyFrom(info.type.tensor_type.shape)
    _fill(value, info, "doc_string")
    _fill(value.type, info.type, "denotation")
    if value.type.HasField("tensor_type") and info.type.HasField("tensor_type"):
        _fill(value.type.tensor_type, info.type.tensor_type, "elem_type")
    said = {each.key for each in value.metadata_props}
    value.metadata_props.extend(each for each in info.metadata_props if each.key not in said)
    dims, others = value.type.tensor_type.shape.dim, info.type.tensor_type.shape.dim
    if len(dims) == len(others):
        for dim, other in zip(dims, others, strict=True):
            _fill(dim, other, "denotation")


def _fill(message: Message, other: Message, name: str) -> None:
    if getattr(other, name) and not getattr(message, name):
        setattr(message, name, getattr(other, name))


def _gather(tensor: TensorProto, folder: Path) -> None:
    """Put the numbers of a tensor into `raw_data`, wherever they are."""
    if tensor.data_type not in _NUMERIC or tensor.HasField("segment"):
        return
    loaded = TensorProto()
    loaded.CopyFrom(tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        open_ = [each for each in loaded.external_data if (each.key, each.value) == ("length", "0")]
        for each in open_:
            loaded.external_data.remove(each)
        onnx.external_data_helper.load_external_data_for_tensor(loaded, str(folder))
        if not any(each.key == "length" for each in loaded.external_data):
            # As many bytes as it needs are read, as ONNX Runtime does; onnx reads the whole rest.
            width = helper.tensor_dtype_to_np_dtype(loaded.data_type).itemsize
            loaded.raw_data = loaded.raw_data[: math.prod(loaded.dims) * width]
        kept = [each for each in tensor.external_data if each.key not in _PLACES]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
    try:
        array = numpy_helper.from_array(numpy_helper.to_array(loaded), "")
    except ValueError:
        return  # too many numbers, or too few
    for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(name)
    tensor.ClearField("data_location")
    tensor.raw_data = array.raw_data
