"""What a target wants of products whose operands are rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

__all__ = ["ACTIVATIONS", "ROUNDED", "Rounding", "rounding_of"]

ROUNDED = ("operators", "biases", "outputs")
"""Keys of lists of products."""
ACTIVATIONS: Mapping[str, ir.DataType] = {"int8": ir.DataType.INT8, "uint8": ir.DataType.UINT8}
"""What activations are rounded to; int8 has zero in its middle."""


@dataclass(frozen=True)
class Rounding:
    """How products stand between QuantizeLinear and DequantizeLinear, for a target to fuse them.

    Attributes:
        operators: The products whose operands are rounded.
        activations: The type of activations.
        biases: Products whose biases are rounded to 32 bits.
        outputs: Products whose outputs are rounded, too.
    """

    operators: tuple[str, ...]
    activations: ir.DataType
    biases: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def rounding_of(found: Mapping[str, Any]) -> Rounding | None:
    """Return what a profile says of rounded products; None where it says nothing.

    Args:
        found: Its settings by dotted key.
    """
    if "rounds.operators" not in found:
        return None
    operators, biases, outputs = (tuple(found.get(f"rounds.{n}", "").split()) for n in ROUNDED)
    kind = ACTIVATIONS[found.get("rounds.activations", "uint8")]
    return Rounding(operators, kind, biases, outputs)
