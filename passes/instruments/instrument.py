"""What an instrument is: something that happens around a pass and is no business of the pass."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.effects import NumberChanges

__all__ = ["Instrument", "Step"]


@dataclass(frozen=True)
class Step:
    """One run of a pass in a pipeline.

    Attributes:
        text: The pass as pipeline text.
        name: The pass's name, fit for a file name.
        number: Its place, counted from 1.
        total: How many passes the pipeline has.
        replay: The command that runs the pipeline up to here.
        needed_by: The pass that needs what this one gives, if it is not in the pipeline itself.
    """

    text: str
    name: str
    number: int
    total: int
    replay: str
    needed_by: str = ""


class Instrument:
    """Sees every pass of a pipeline; each method does nothing unless overridden.

    `before` runs in the order given, `after` and `failed` in the reverse order. What `after`
    raises counts as a failure of the pass.
    """

    def should_run(self, step: Step, model: ir.Model) -> bool:
        """Return whether the pass may run; one False among the instruments skips it."""
        return True

    def before(self, step: Step, model: ir.Model) -> None:
        """See the model before the pass."""

    def altered(self, step: Step, changes: NumberChanges) -> None:
        """Learn what a pass did to numbers, right before `after`.

        Args:
            step: The run of the pass.
            changes: What a comparison with the model before is to allow for.
        """

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        """See the model after the pass.

        Args:
            step: The run of the pass.
            model: The model as the pass left it.
            changed: Whether the pass says that it changed something.
        """

    def failed(self, step: Step, model: ir.Model, error: BaseException) -> None:
        """See what a pass raised; only called where `before` of this instrument came through.

        Args:
            step: The run of the pass.
            model: The model, which may be half changed.
            error: What it raised, or what an `after` did.
        """
