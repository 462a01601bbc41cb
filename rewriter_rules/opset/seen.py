"""Values of a model as adapters see them."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["SeenValue", "original"]


class SeenValue(ir.Value):
    """A value of the model with another type or shape; it lies in no graph and has no producer.

    Attributes:
        original: The value of the model.
    """

    def __init__(
        self,
        original: ir.Value,
        kind: ir.TypeProtocol | None,
        shape: ir.Shape | None,
        tensor: ir.TensorProtocol | None = None,
    ) -> None:
        super().__init__(name=original.name, type=kind, shape=shape, const_value=tensor)
        self.original = original


def original(value: ir.Value) -> ir.Value:
    """Return the value of the model that a value shows, or the value where it shows none."""
    return value.original if isinstance(value, SeenValue) else value
