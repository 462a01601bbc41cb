"""What tells tensors apart: kind, which costs nothing, and content, which must be read."""

from __future__ import annotations

from typing import TypeAlias

import onnx_ir as ir

__all__ = ["Kind", "elements_of", "kind_of"]

Kind: TypeAlias = "tuple[ir.DataType, tuple[object, ...]]"
"""Element type and extents."""


def kind_of(tensor: ir.TensorProtocol) -> Kind:
    """Return a tensor's kind; only tensors of one kind can have equal content."""
    return tensor.dtype, tuple(tensor.shape.dims)


def elements_of(tensor: ir.TensorProtocol) -> bytes:
    """Return the elements of a small tensor that holds no strings, read whole.

    Equal for equal tensors of one kind, bit by bit, whatever they are stored in; sub-byte elements
    take a byte each.
    """
    return bytes(tensor.numpy().tobytes())
