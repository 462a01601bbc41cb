"""Time, memory and node counts of every pass."""

from __future__ import annotations

import time

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.system.memory import peak_rss, rss
from vlmpass.passes.instruments.instrument import Instrument, Step
from vlmpass.passes.pipeline.report import PassReport

__all__ = ["Measure"]


class Measure(Instrument):
    """Collects a PassReport for every pass that ran.

    Attributes:
        reports: The reports in order.
    """

    def __init__(self) -> None:
        self.reports: list[PassReport] = []
        self._before = (0, 0, 0.0)
        self._count: int | None = None

    def before(self, step: Step, model: ir.Model) -> None:
        """Note where the pass starts."""
        self._before = (self._nodes(model), rss(), time.perf_counter())

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        """Report what the pass took."""
        nodes, held, start = self._before
        seconds = time.perf_counter() - start
        if changed:
            self._count = None
        after = self._nodes(model)
        grown = rss() - held
        taken = (seconds, peak_rss(), grown, nodes, after)
        self.reports.append(PassReport(step.text, changed, False, *taken, step.needed_by))

    def skipped(self, step: Step, model: ir.Model) -> None:
        """Report that the pass did not run."""
        nodes = self._nodes(model)
        taken = (0.0, peak_rss(), 0, nodes, nodes)
        self.reports.append(PassReport(step.text, False, True, *taken, step.needed_by))

    def _nodes(self, model: ir.Model) -> int:
        if self._count is None:
            self._count = sum(len(scope.graph) for scope in scopes(model))
        return self._count
