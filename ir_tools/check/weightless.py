"""Models without large weights, where only types and shapes matter.

Every large tensor becomes a reference to one file, which the checker wants to exist and does not
read. Small tensors keep their values, because shapes may depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.proto.proto_tensors import model_tensors
from vlmpass.ir_tools.proto.proto_view import inline
from vlmpass.ir_tools.weights.packing import packed_size

__all__ = ["LOCATION", "ReadBytes", "weightless", "without_weights"]

LOCATION = "weights"
"""What large tensors refer to."""
ReadBytes: TypeAlias = "Callable[[str, int, int], bytes]"
"""Returns bytes of a data file, given its location, an offset and a length."""

_INLINE_BYTES = 1024
_INLINE_INTEGERS = 16384  # shapes, axes, lengths: inference fails without those that it needs


def _limit(dtype: ir.DataType) -> int:
    return _INLINE_INTEGERS if dtype.is_integer() else _INLINE_BYTES


def weightless(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return what stands for a tensor where only types and shapes matter.

    Small tensors keep their values, because shapes may depend on them. Where one lies in a file
    that cannot be read, the type check goes on without; it says so if a shape does depend on it.
    """
    if tensor.nbytes <= _limit(tensor.dtype):
        if not isinstance(tensor, ir.ExternalTensor):
            return inline(tensor)
        try:
            return ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        except (OSError, ModelError):
            pass
    dims = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(LOCATION, None, None, tensor.dtype, shape=dims, name=tensor.name or "")


def without_weights(proto: onnx.ModelProto, read: ReadBytes) -> onnx.ModelProto:
    """Take the large tensors out of a protobuf and put the small ones into it; return it.

    Args:
        proto: It is changed.
        read: Returns what small tensors refer to.
    """
    for tensor in model_tensors(proto):
        dtype = ir.DataType(tensor.data_type)
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if dtype == ir.DataType.STRING:
            continue
        if packed_size(dtype, math.prod(tensor.dims)) > _limit(dtype):
            _refer(tensor)
        elif external:
            _hold(tensor, read)
    return proto


def _refer(tensor: onnx.TensorProto) -> None:
    bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    bare.data_location = onnx.TensorProto.EXTERNAL
    bare.external_data.add(key="location", value=LOCATION)
    tensor.CopyFrom(bare)


def _hold(tensor: onnx.TensorProto, read: ReadBytes) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    data = read(entries["location"], int(entries["offset"]), int(entries["length"]))
    bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    bare.raw_data = data
    tensor.CopyFrom(bare)
