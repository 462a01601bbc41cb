"""No change after the Nth: what a bisection over passes and rule applications turns."""

from __future__ import annotations

from contextvars import Token

import onnx_ir as ir

from vlmpass.ir_tools.graph.limit import LIMIT, Changes
from vlmpass.passes.instruments.instrument import Instrument, Step

__all__ = ["Limit"]


class Limit(Instrument):
    """Counts changes and stops them at a limit.

    Every rule application counts as one; so does every pass that changed something without asking
    for rule applications. `Limit(None)` counts without limit, which tells a bisection its range.

    Attributes:
        changes: The running number and the last change made.
    """

    def __init__(self, limit: int | None) -> None:
        self.changes = Changes(limit)
        self._token: Token[Changes | None] | None = None
        self._made = 0

    def should_run(self, step: Step, model: ir.Model) -> bool:
        """Skip the pass where the limit is reached."""
        return not self.changes.exhausted

    def before(self, step: Step, model: ir.Model) -> None:
        """Let the pass ask."""
        self._made = self.changes.made
        self._token = LIMIT.set(self.changes)

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        """Count a pass that changed something without asking as one change."""
        self._restore()
        if changed and self.changes.made == self._made:
            self.changes.take(step.text)

    def failed(self, step: Step, model: ir.Model, error: BaseException) -> None:
        """Stop answering."""
        self._restore()

    def _restore(self) -> None:
        if self._token is not None:
            LIMIT.reset(self._token)
            self._token = None
