"""What a result with weights of few bits is compared with, and what the rounding costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.effects import NumberChanges
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.measuring_once import Measures, measuring_once

__all__ = ["BeforeRounding"]


@dataclass(frozen=True)
class BeforeRounding:
    """A model before its weights are rounded to few bits.

    Attributes:
        model: As it was then.
        passes: What rounds, in order.
        changed: Whether passes before that changed the source.
        changes: What those did to numbers.
        runs: How many runs of passes came before.
        known: What the passes measured.
    """

    model: ir.Model
    passes: Sequence[Pass]
    changed: bool
    changes: NumberChanges
    runs: int
    known: Measures

    def rounded(self) -> ir.Model:
        """Return the model with all that is rounded still floats: what the result computes."""
        model, done = clone(self.model), set[ir.Value]()
        with measuring_once(self.known):
            for each in self.passes:
                each.round_likewise(model, done)
        return model

    def cost(self, result: ir.Model, allowance: Allowance) -> str:
        """Say how far the result's outputs are from those with the weights as they were.

        Raises:
            VlmpassError: They cannot be compared.
        """
        from vlmpass.ir_tools.run.verify import verify

        found = verify(self.model, result, tolerance=math.inf, allowance=allowance)
        if not found.outputs:
            return "the model has no outputs that rounding could change"
        worst = max(found.outputs, key=lambda output: output.norm)
        what = max((each.rounds for each in self.passes), key=len)
        others = ", others by less" if len(found.outputs) > 1 else ""
        return (
            f"rounding {what} changes output '{worst.name}' by {worst.norm:.2%} "
            f"of its size (cosine {worst.cosine:.6f}){others}, on the inputs compared"
        )
