"""The full type check after every pass that changed something."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.check import check
from vlmpass.passes.instruments.instrument import Instrument, Step

__all__ = ["VerifyEach"]


class VerifyEach(Instrument):
    """Fails the pass that left an invalid model; no weight is read."""

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        """Check the model if it changed."""
        if changed:
            check(model)
