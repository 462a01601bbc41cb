"""Constants that are stored sparse: what they make is dense, and so they are held."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError

__all__ = ["with_dense_constants"]

_MOST_BYTES = 64 << 20
_SPARSE = onnx.AttributeProto.SPARSE_TENSOR


def with_dense_constants(proto: onnx.ModelProto, *, owned: bool) -> onnx.ModelProto:
    """Return a model whose Constants have dense values where they had sparse ones.

    A Constant's output is a dense tensor either way; onnx_ir holds no sparse attribute.

    Args:
        proto: The model.
        owned: Whether it may be changed; a copy is, if it may not.

    Raises:
        ModelError: One is not well formed, or larger than 64 MiB when it is dense.
    """
    if next(_sparse_constants(proto), None) is None:
        return proto
    if not owned:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        proto = copy
    for node, attribute in _sparse_constants(proto):
        title = f"the sparse value of Constant {node.name or ', '.join(node.output)}"
        dense = _dense(attribute.sparse_tensor, title)
        dense.name = attribute.sparse_tensor.values.name
        attribute.Clear()
        attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
        attribute.t.CopyFrom(dense)
    return proto


def _sparse_constants(
    proto: onnx.ModelProto,
) -> Iterator[tuple[onnx.NodeProto, onnx.AttributeProto]]:
    waiting = [proto.graph.node, *(function.node for function in proto.functions)]
    while waiting:
        for node in waiting.pop():
            for attribute in node.attribute:
                waiting += [attribute.g.node] if attribute.HasField("g") else []
                waiting += [graph.node for graph in attribute.graphs]
                if _is_sparse_value(node, attribute):
                    yield node, attribute


def _is_sparse_value(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> bool:
    constant = node.op_type == "Constant" and node.domain in ("", "ai.onnx")
    return constant and attribute.name == "sparse_value" and attribute.type == _SPARSE


def _dense(sparse: onnx.SparseTensorProto, title: str) -> onnx.TensorProto:
    parts = (sparse.values, sparse.indices)
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in parts):
        raise ModelError(f"{title} lies in another file", remedy="store it as a dense one")
    try:
        values, places = (ir.serde.deserialize_tensor(each).numpy() for each in parts)
    except Exception as error:  # numpy and onnx raise anything on data that are too short
        raise ModelError(f"{title} cannot be read", remedy="export the model again") from error
    if values.dtype == np.object_:
        raise ModelError(f"{title} holds strings", remedy="store it as a dense one")
    count = math.prod(sparse.dims)
    if count * values.itemsize > _MOST_BYTES:
        raise ModelError(
            f"{title} has {count} elements, more than 64 MiB when it is dense",
            remedy="make it an initializer in a data file",
        )
    dense = np.zeros(count, values.dtype)
    dense[_flat(sparse, values, places, title)] = values
    dtype = ir.DataType(sparse.values.data_type)
    return ir.serde.serialize_tensor(ir.Tensor(dense.reshape(sparse.dims), dtype=dtype))


def _flat(
    sparse: onnx.SparseTensorProto, values: np.ndarray, places: np.ndarray, title: str
) -> np.ndarray:
    """Return the places as numbers of elements in row-major order."""
    dims = np.array(sparse.dims, np.int64)
    fits = places.dtype == np.int64 and values.ndim == 1 and len(places) == len(values)
    if not fits or places.shape[1:] not in ((), (len(dims),)) or (dims < 0).any():
        raise ModelError(f"{title} does not fit its indices", remedy="export the model again")
    if places.ndim == 1:
        inside, flat = (places >= 0) & (places < math.prod(sparse.dims)), places
    else:
        inside = (places >= 0) & (places < dims)
        strides = [math.prod(sparse.dims[axis + 1 :]) for axis in range(len(dims))]
        flat = places @ np.array(strides, np.int64)
    if not inside.all():
        raise ModelError(f"{title} has indices outside of it", remedy="export the model again")
    return flat
