"""Whether the model still computes the same, after every pass that changed something."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.run import verify
from vlmpass.passes.instruments.instrument import Instrument, Step
from vlmpass.rewriter_rules.restore import restore

__all__ = ["NumericCheck"]


class NumericCheck(Instrument):
    """Fails the pass after which the outputs differ from those of the model before all passes.

    Both run on generated inputs, in processes of their own.

    Args:
        tolerance: Largest relative error; by default that of the narrowest type computed in.
    """

    def __init__(self, tolerance: float | None = None) -> None:
        self._tolerance = tolerance
        self._source: ir.Model | None = None
        self._changes = EXACT

    def before(self, step: Step, model: ir.Model) -> None:
        """Keep the model as it was before the first pass."""
        self._source = self._source or clone(model)

    def altered(self, step: Step, changes: NumberChanges) -> None:
        """Add up what the passes did to numbers."""
        self._changes |= changes

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        """Compare what both compute, if the model changed.

        Raises:
            VerifyError: They differ by more than the tolerance.
        """
        assert self._source is not None
        if not changed:
            return
        found = verify(
            self._source,
            model,
            tolerance=self._tolerance,
            restore=restore,
            changes=self._changes,
        )
        if not found.ok:
            wrong = [f"{each.name}: {each.reason}" for each in found.outputs if not each.ok]
            what = "; ".join([*found.findings, *wrong])
            raise VerifyError(f"the model no longer computes the same ({what})")
