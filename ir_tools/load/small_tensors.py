"""Small tensors out of a protobuf as arrays; equal ones, of which a graph has many, share one."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

__all__ = ["SmallTensors"]

_SMALL_BYTES = 1024
_IN_BYTES = frozenset(
    dtype.value
    for dtype in ir.DataType
    if dtype not in (ir.DataType.STRING, ir.DataType.UNDEFINED) and dtype.bitwidth >= 8
)
"""Element types whose elements take whole bytes."""
_Array: TypeAlias = "ir.Tensor[np.ndarray]"


class SmallTensors:
    """Makes tensors that hold arrays; equal ones share array, element type and shape.

    onnx_ir would hold the protobuf, write its metadata twice, and decode it anew at every look.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, tuple[int, ...], bytes], _Array] = {}

    def tensor(self, proto: onnx.TensorProto) -> _Array | None:
        """Return a small tensor as one that holds an array, which nobody can write to.

        Returns:
            None for one that is to stay as it is: large, of strings or parts of bytes, in a data
            file, or with numbers in a typed field of the protobuf, to be written back into it.
        """
        number, raw = proto.data_type, proto.raw_data
        if number not in _IN_BYTES or len(raw) > _SMALL_BYTES:
            return None
        if not raw and not proto.HasField("raw_data"):
            return None
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            return None
        key = (number, tuple(proto.dims), raw)
        equal = self._held.get(key)
        if equal is None:
            read = ir.TensorProtoTensor(proto)
            array, dtype, shape = read.numpy(), read.dtype, read.shape
        else:
            array, dtype, shape = equal.raw, equal.dtype, equal.shape
        new = ir.Tensor(
            array,
            dtype=dtype,
            shape=shape,
            name=proto.name,
            doc_string=proto.doc_string,
            metadata_props=ir.serde.deserialize_metadata_props(proto.metadata_props),
        )
        if equal is None:
            self._held[key] = new
        return new
