"""What of a ModelProto cannot be kept: fields that nobody here knows, strings that are no text.

onnx_ir reads the fields that it knows and drops all others. `KEPT` names every field that survives
loading and saving or is refused by `vet` where it is set; whatever else a newer onnx may have, or
a file may hold that the installed onnx has no name for, is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import onnx
from google.protobuf.descriptor_pb2 import (  # type: ignore[import-untyped,unused-ignore]
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import (  # type: ignore[import-untyped,unused-ignore]
    DescriptorPool,
)
from google.protobuf.message import (  # type: ignore[import-untyped,unused-ignore]
    DecodeError,
    Message,
)
from google.protobuf.message_factory import (  # type: ignore[import-untyped,unused-ignore]
    GetMessageClass,
)
from google.protobuf.unknown_fields import (  # type: ignore[import-untyped,unused-ignore]
    UnknownFieldSet,
)

from vlmpass.ir_tools.errors import ModelError

__all__ = ["KEPT", "refuse_lost", "refuse_undecodable"]

KEPT: Mapping[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "ModelProto": "ir_version producer_name producer_version domain model_version doc_string "
        "graph opset_import metadata_props training_info functions configuration",
        "DeviceConfigurationProto": "name num_devices device",
        "OperatorSetIdProto": "domain version",
        "StringStringEntryProto": "key value",
        "GraphProto": "node name initializer sparse_initializer doc_string input output value_info "
        "quantization_annotation metadata_props",
        "TensorAnnotation": "tensor_name quant_parameter_tensor_names",
        "FunctionProto": "name input output attribute attribute_proto node doc_string opset_import "
        "domain overload value_info metadata_props",
        "NodeProto": "input output name op_type domain overload attribute doc_string "
        "metadata_props device_configurations",
        "NodeDeviceConfigurationProto": "configuration_id sharding_spec pipeline_stage",
        "ShardingSpecProto": "tensor_name device index_to_device_group_map sharded_dim",
        "IntIntListEntryProto": "key value",
        "ShardedDimProto": "axis simple_sharding",
        "SimpleShardedDimProto": "dim_value dim_param num_shards",
        "AttributeProto": "name ref_attr_name doc_string type f i s t g sparse_tensor tp floats "
        "ints strings tensors graphs sparse_tensors type_protos",
        "ValueInfoProto": "name type doc_string metadata_props",
        "TypeProto": "tensor_type sequence_type map_type optional_type sparse_tensor_type "
        "opaque_type denotation",
        "TypeProto.Tensor": "elem_type shape",
        "TypeProto.Sequence": "elem_type",
        "TypeProto.Map": "key_type value_type",
        "TypeProto.Optional": "elem_type",
        "TypeProto.SparseTensor": "elem_type shape",
        "TypeProto.Opaque": "domain name",
        "TensorShapeProto": "dim",
        "TensorShapeProto.Dimension": "dim_value dim_param denotation",
        "TensorProto": "dims data_type segment float_data int32_data string_data int64_data name "
        "doc_string raw_data external_data data_location double_data uint64_data metadata_props",
    }.items()
}
"""The fields of each message that `vet` and the serialiser answer for."""


@cache
def _has_new_fields() -> bool:
    """Whether the installed onnx has fields that nobody here answers for."""
    seen: set[str] = set()
    pending = [onnx.ModelProto.DESCRIPTOR]
    while pending:
        descriptor = pending.pop()
        known = KEPT.get(_name(descriptor))
        if known is None or descriptor.full_name in seen:
            continue  # a message that vet refuses where it is set, whole
        seen.add(descriptor.full_name)
        if any(field.name not in known for field in descriptor.fields):
            return True
        pending += [each.message_type for each in descriptor.fields if each.message_type]
    return False


def _name(descriptor: Any) -> str:
    return str(descriptor.full_name).removeprefix("onnx.")


def refuse_lost(proto: onnx.ModelProto, *, owned: bool) -> None:
    """Refuse a model with fields that would be dropped without a word.

    Args:
        proto: The model.
        owned: Whether it was read from a file just now, its strings looked at already, and fields
            without a name may be taken out of it.

    Raises:
        ModelError: Naming the first such field.
    """
    if owned and not _has_new_fields():
        size = proto.ByteSize()
        proto.DiscardUnknownFields()
        if proto.ByteSize() != size:
            raise _unknown("the model")
        return
    for where, message in _messages(proto, "the model"):
        if len(UnknownFieldSet(message)):
            raise _unknown(where)
        _refuse_bytes(where, message)
        known = KEPT.get(_name(message.DESCRIPTOR), frozenset())
        for field, _ in message.ListFields():
            if known and field.name not in known:
                raise ModelError(
                    f"{where} has the field {field.name}, which cannot be kept",
                    remedy="clear it, or install a vlmpass that knows it",
                )


def _unknown(where: str) -> ModelError:
    return ModelError(
        f"{where} has fields or kinds that the installed onnx does not know, which cannot be kept",
        remedy="install a newer onnx, or drop them (DiscardUnknownFields of the ModelProto)",
    )


def _messages(message: Message, where: str) -> Iterator[tuple[str, Message]]:
    """Yield a message and those within it, with their paths."""
    pending = [(where, message)]
    while pending:
        where, message = pending.pop()
        yield where, message
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            if isinstance(value, Message):
                pending.append((f"{field.name} of {where}", value))
            else:
                items = enumerate(value)
                pending += [(f"{field.name}[{index}] of {where}", item) for index, item in items]


def refuse_undecodable(proto: onnx.ModelProto, serialized: bytes) -> None:
    """Refuse a model with a string that is not UTF-8; protobuf reads it as bytes.

    Args:
        proto: The model.
        serialized: What it was parsed from.

    Raises:
        ModelError: Naming the string by its path.
    """
    try:
        _strict().FromString(serialized)
    except DecodeError:
        for where, message in _messages(proto, "the model"):
            _refuse_bytes(where, message)


def _refuse_bytes(where: str, message: Message) -> None:
    for field, value in message.ListFields():
        if field.type != field.TYPE_STRING:
            continue
        for text in [value] if isinstance(value, (str, bytes)) else value:
            if isinstance(text, bytes):
                raise ModelError(
                    f"{field.name} of {where} is not UTF-8: {text[:32]!r}",
                    remedy="export the model again with names in UTF-8",
                )


@cache
def _strict() -> Any:
    """Return ModelProto as a class that refuses to parse strings which are not UTF-8.

    The rules of proto3 say so, and those of proto2, in which onnx is written, do not.
    """
    file = FileDescriptorProto.FromString(onnx.ModelProto.DESCRIPTOR.file.serialized_pb)
    file.syntax = "proto3"
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(onnx.ModelProto.DESCRIPTOR.full_name))
