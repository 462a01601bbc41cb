"""What is checked of that which a graph says of its values: types, shapes, annotations."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.load.tensors import refuse_repeated, refuse_unknown_type, vet_extents

__all__ = ["vet_annotations", "vet_infos", "vet_passed_on", "vet_type"]

_WIDEST = 128  # bits of an element


def vet_annotations(annotations: Iterable[onnx.TensorAnnotation], where: str) -> None:
    """Refuse two quantization annotations of one value that differ.

    Raises:
        ModelError: Naming the value and the graph.
    """
    seen: dict[str, onnx.TensorAnnotation] = {}
    for each in annotations:
        refuse_repeated(each.quant_parameter_tensor_names, f"the annotation of {each.tensor_name}")
        if seen.setdefault(each.tensor_name, each) != each:
            raise ModelError(
                f"{where} has two quantization annotations of {each.tensor_name}",
                remedy="remove one of them",
            )


def vet_infos(infos: Iterable[onnx.ValueInfoProto], where: str) -> None:
    """Refuse types that would be lost, and two infos of one value that differ.

    Raises:
        ModelError: Naming the value and, for two infos, the graph.
    """
    seen: dict[str, onnx.ValueInfoProto] = {}
    sound: set[bytes] = set()  # many values are of few types
    for info in infos:
        type_ = info.type.SerializeToString()
        if type_ not in sound:
            vet_type(info.type, f"value {info.name}")
            sound.add(type_)
        if info.metadata_props:
            refuse_repeated(info.metadata_props, f"value {info.name}")
        if seen.setdefault(info.name, info) is not info and seen[info.name] != info:
            raise ModelError(
                f"{where} says two things of value {info.name}", remedy="remove one of them"
            )


def vet_passed_on(graph: onnx.GraphProto, where: str) -> None:
    """Refuse an input or output that another place says something else of: only one can be kept.

    Raises:
        ModelError: Naming the value and the graph.
    """
    inputs = {info.name: info.type for info in graph.input}
    for info in graph.output:
        taken = inputs.get(info.name)
        if taken is not None and (
            _are_unlike(taken, info.type) or _differ_in_size(taken, info.type)
        ):
            _refuse_two(where, info.name, "as an input and as an output")
    interface = inputs | {info.name: info.type for info in graph.output}
    for info in graph.value_info:
        stated = interface.get(info.name)
        if stated is not None and _are_unlike(stated, info.type):
            _refuse_two(where, info.name, "in its value_info and as an input or output")


def _refuse_two(where: str, name: str, places: str) -> None:
    raise ModelError(
        f"{where} says two things of value {name}, {places}", remedy="export the model again"
    )


def _are_unlike(one: onnx.TypeProto, other: onnx.TypeProto) -> bool:
    """Whether two types are of different kinds, elements, ranks or numbers of elements."""
    kinds = one.WhichOneof("value"), other.WhichOneof("value")
    if None in kinds or kinds[0] != kinds[1]:
        return None not in kinds
    if kinds[0] in ("sequence_type", "optional_type"):
        pair = (getattr(each, str(kinds[0])).elem_type for each in (one, other))
        return _are_unlike(*pair)
    tensors = one.tensor_type, other.tensor_type
    elements = {each.elem_type for each in tensors} - {0}
    dims = [each.shape.dim for each in tensors]
    shaped = all(each.HasField("shape") for each in tensors)
    numbers = ({each.dim_value for each in pair} - {0} for pair in zip(*dims, strict=False))
    return (
        len(elements) > 1
        or (shaped and len(dims[0]) != len(dims[1]))
        or any(len(each) > 1 for each in numbers)
    )


def _differ_in_size(one: onnx.TypeProto, other: onnx.TypeProto) -> bool:
    return any(map(_contradict, one.tensor_type.shape.dim, other.tensor_type.shape.dim))


def _contradict(
    one: onnx.TensorShapeProto.Dimension, other: onnx.TensorShapeProto.Dimension
) -> bool:
    if one.WhichOneof("value") is None or other.WhichOneof("value") is None:
        return False
    return (one.dim_value, one.dim_param) != (other.dim_value, other.dim_param)


def vet_type(proto: onnx.TypeProto, where: str, *, known: bool = False) -> None:
    """Refuse a type that would be lost.

    Args:
        proto: The type as the file has it.
        where: What is of that type, for messages.
        known: Whether it must say what its elements are.

    Raises:
        ModelError: It is a map, opaque or a sequence of sparse tensors of a shape, or says too
            little.
    """
    kind = proto.WhichOneof("value")
    known = known or bool(proto.denotation)
    if kind in ("map_type", "opaque_type"):
        raise ModelError(
            f"{where} is of {_ARTICLE[kind]}, which cannot be kept",
            remedy="cut the model before it",
        )
    if kind in ("sequence_type", "optional_type"):
        element = getattr(proto, kind).elem_type
        if element.sparse_tensor_type.HasField("shape"):
            raise ModelError(
                f"{where} holds sparse tensors of a shape, which cannot be kept",
                remedy="cut the model before it",
            )
        vet_type(element, f"the element of {where}", known=True)
    elif kind in ("tensor_type", "sparse_tensor_type"):
        known = known or kind == "sparse_tensor_type"
        _vet_tensor_type(getattr(proto, kind), where, known=known)
    elif known:
        raise ModelError(f"{where} has no type", remedy="set its elem_type")


_ARTICLE = {"map_type": "a map type", "opaque_type": "an opaque type"}


def _vet_tensor_type(
    proto: onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor, where: str, *, known: bool
) -> None:
    if not proto.HasField("elem_type") and (known or proto.HasField("shape")):
        has = "a shape but " if proto.HasField("shape") else ""
        raise ModelError(f"{where} has {has}no element type", remedy="set its elem_type")
    refuse_unknown_type(proto.elem_type, where)
    vet_extents([dim.dim_value for dim in proto.shape.dim], _WIDEST, where)
