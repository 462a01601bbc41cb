"""A model as ONNX text to read and compare, with digests in the place of data."""

from __future__ import annotations

import hashlib
import math

import onnx.printer
import onnx_ir as ir

from vlmpass.ir_tools.proto.proto_view import inline, skeleton
from vlmpass.ir_tools.weights import as_weight

__all__ = ["Digests", "model_text"]

_PRINTED_ELEMENTS = 16


class Digests:
    """SHA-256 of tensors by streaming, each computed once for as long as this object lives."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ir.TensorProtocol, str]] = {}

    def of(self, tensor: ir.TensorProtocol) -> str:
        """Return ``sha256:`` and the hexadecimal digest of a tensor's packed bytes."""
        if id(tensor) not in self._known:
            digest = hashlib.sha256()
            if tensor.dtype == ir.DataType.STRING:
                for text in tensor.numpy().ravel():
                    digest.update(len(text).to_bytes(8, "little") + text)
            else:
                for chunk in as_weight(tensor).chunks():
                    digest.update(chunk)
            self._known[id(tensor)] = (tensor, f"sha256:{digest.hexdigest()}")
        return self._known[id(tensor)][1]


def model_text(model: ir.Model, digests: Digests | None = None) -> str:
    """Return a model in the ONNX text syntax.

    Args:
        model: Any model; weights are read in chunks, never whole.
        digests: Digests known from earlier texts of the same tensors.

    A tensor above 16 elements, or of a sub-byte type, is written as if it lay in an external file
    named by its digest: ``float16[4096,4096] w = ["location": "sha256:…"]``. The parser of ONNX
    text takes this for initializers; it takes no external tensor in an attribute, so that a text
    with a large Constant is for reading only. Metadata has no place in this syntax.
    """
    known = digests or Digests()

    def stand_in(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        dims = tensor.shape.numpy()
        if math.prod(dims) <= _PRINTED_ELEMENTS and tensor.dtype.bitwidth >= 8:
            return inline(tensor)
        return ir.ExternalTensor(
            known.of(tensor), None, None, tensor.dtype, shape=ir.Shape(dims), name=tensor.name or ""
        )

    return onnx.printer.to_text(skeleton(model, stand_in)) + "\n"
