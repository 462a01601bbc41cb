"""Types and shapes of new nodes, found once for all that are alike, as layers of a model are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.walk import holds_graphs

__all__ = ["infer_new"]

_Kind = ir.AttributeType
_PLAIN = frozenset((_Kind.INT, _Kind.FLOAT, _Kind.STRING, _Kind.INTS, _Kind.FLOATS, _Kind.STRINGS))
_DOMAINS = ("", "com.microsoft")
"""Whose shape functions are known to look at nothing but what the key is made of."""
_SMALL_BYTES = 256
_MOST = 4096

_Dims = tuple[int | ir.SymbolicDim, ...]
_Found = tuple[tuple[ir.DataType | None, _Dims | None], ...]
_FOUND: dict[Hashable, _Found] = {}


def infer_new(node: ir.Node, opsets: Mapping[str, int]) -> None:
    """Do what `infer_node` does for a node whose outputs have no types and shapes yet.

    Args:
        node: A new node, whose inputs carry types.
        opsets: Imported opset version by domain.
    """
    key = _key(node, opsets)
    found = None if key is None else _FOUND.get(key)
    if found is None:
        infer_node(node, opsets)
        if key is not None:
            _remember(key, node)
        return
    for output, (dtype, dims) in zip(node.outputs, found, strict=True):
        output.type = None if dtype is None else ir.TensorType(dtype)
        output.shape = None if dims is None else ir.Shape(dims)


def _remember(key: Hashable, node: ir.Node) -> None:
    """Keep what was found, unless there is more to it than a tensor's type and shape."""
    found: list[tuple[ir.DataType | None, _Dims | None]] = []
    for output in node.outputs:
        if output.const_value is not None or not _is_of_tensor(output.type):
            return
        dims = None if output.shape is None else output.shape.dims
        found.append((output.dtype, dims))
    if len(_FOUND) >= _MOST:
        _FOUND.clear()
    _FOUND[key] = tuple(found)


def _key(node: ir.Node, opsets: Mapping[str, int]) -> Hashable:
    """Return all that types and shapes of its outputs depend on; None if that is too much."""
    if node.domain not in _DOMAINS:
        return None
    attributes = []
    for each in node.attributes.data.values():
        if each.type not in _PLAIN or each.is_ref():
            return None
        attributes.append((each.name, int(each.type), each.value))
    places: dict[ir.Value | None, int] = {}
    inputs: list[Hashable] = []
    for value in node.inputs:
        # The same value twice has the same unknown sizes.
        first = places.setdefault(value, len(places))
        said = None if value is None else _said(value)
        if value is not None and said is None:
            return None
        inputs.append((first, said))
    versions = opsets.get(""), opsets.get(node.domain)
    kind = node.domain, node.op_type, versions, len(node.outputs)
    return kind, tuple(attributes), tuple(inputs)


def _said(value: ir.Value) -> Hashable:
    """Return what is known of an input; None if it is too much to compare."""
    type_, shape, tensor = value.type, value.shape, value.const_value
    producer = value.producer()
    if not _is_of_tensor(type_) or value.metadata_props:
        return None
    if producer is not None and (producer.op_type == "Constant" or holds_graphs(producer)):
        return None
    data = None
    if tensor is not None:
        if not isinstance(tensor, ir.Tensor) or tensor.dtype == ir.DataType.STRING:
            return None
        if tensor.nbytes > _SMALL_BYTES:
            return None
        data = tensor.tobytes()
    dims = None if shape is None else shape.dims
    return None if type_ is None else int(type_.dtype), dims, data


def _is_of_tensor(type_: ir.TypeProtocol | None) -> bool:
    return type_ is None or type(type_) is ir.TensorType  # isinstance asks protocols, slowly
