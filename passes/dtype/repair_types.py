"""The pass that makes an ill-typed graph well typed, by the fewest and cheapest Casts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.passes.dtype.repair import repair
from vlmpass.passes.pipeline.base import Pass

__all__ = ["RepairTypes"]

_PREFER = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "follow-weights": None,
}


@dataclass(frozen=True)
class RepairTypes(Pass):
    """Make an ill-typed graph well typed with the fewest and cheapest Casts."""

    name: ClassVar[str] = "repair-types"
    nothing: ClassVar[str] = "the model is well typed"

    prefer: Literal["follow-weights", "float32", "float16"] = "follow-weights"
    """The float type to take between equally few Casts; `follow-weights` leaves matrices alone."""

    def run(self, model: ir.Model) -> bool:
        """Repair in place."""
        return repair(model, request=self.name, prefer=_PREFER[self.prefer])
