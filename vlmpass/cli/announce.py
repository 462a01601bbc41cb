"""Saying which pass runs, while it runs."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.cli.console import Status
from vlmpass.passes.instruments.instrument import Instrument, Step

__all__ = ["announce"]


class _Announce(Instrument):
    def __init__(self, status: Status) -> None:
        self._status = status

    def before(self, step: Step, model: ir.Model) -> None:
        self._status.stage(step.name)

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        self._status.stage("planning the files")


def announce(status: Status) -> Instrument:
    """Return an instrument that shows each pass's name."""
    return _Announce(status)
