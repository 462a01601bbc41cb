"""What values reach when a model runs, in every call of a function."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused, VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.run import Allowance, default_memory
from vlmpass.ir_tools.run.calibration import calibration_feeds
from vlmpass.ir_tools.run.ranges import generated_magnitudes, magnitudes
from vlmpass.ir_tools.run.widen import widen
from vlmpass.ir_tools.types import solve
from vlmpass.passes.inline_functions import InlineFunctions

__all__ = ["Measured", "measured"]

_LOG = logging.getLogger(__name__)
_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_ORIGIN = "vlmpass.origin"
_SECONDS = 120.0


@dataclass(frozen=True)
class Measured:
    """What was measured of a model.

    Attributes:
        tops: The largest magnitude of values of the main graph and of functions, over all calls.
        seen: The nodes that were run where values are measured: not those of subgraphs.
    """

    tops: Mapping[ir.Value, float] = field(default_factory=dict)
    seen: frozenset[ir.Node] = frozenset()


def measured(model: ir.Model, calibrate: str, largest: float) -> Measured:
    """Return what the float32 values of a model reach.

    Args:
        model: It is not changed.
        calibrate: ``random`` or ``auto`` inputs, or an .npz file of them or a folder of such. With
            ``auto``, what keeps it from being measured is logged, and nothing is returned.
        largest: With ``auto``: the most that an output of the result can hold.

    Raises:
        VerifyError: ONNX Runtime is missing, or does not load or run the model.
        Refused: The functions cannot be inlined, which is how calls are told apart.
    """
    if calibrate != "auto":
        twin = _Twin(model)
        return twin.seen_by(magnitudes(twin.model, calibration_feeds(calibrate, model)))
    if importlib.util.find_spec("onnxruntime") is None:
        _LOG.warning("ranges were not measured: ONNX Runtime is not installed")
        return Measured()
    allowance = Allowance(default_memory(), time.monotonic() + _SECONDS)
    try:
        twin = _Twin(model)
        found, stopped = generated_magnitudes(twin.model, allowance, largest)
    except (Refused, VerifyError) as error:
        _LOG.warning("ranges were not measured: %s", error)
        return Measured()
    if stopped is not None:
        _LOG.warning("ranges were measured on some inputs only: %s", stopped)
    return twin.seen_by(found)


class _Twin:
    """A model whose calls are inlined, and for its nodes those that they are copies of.

    What it computes in half precision it computes in float32: ONNX Runtime has little for halves.
    """

    def __init__(self, model: ir.Model) -> None:
        self._given = model
        self._typing = solve(model)
        values = (value for node in all_nodes(model) for value in node.outputs)
        halves = _HALVES & {self._typing.dtype(value) for value in values}
        self.model = model
        if not halves and not model.functions:
            return  # it is run as it is
        self._originals = list(all_nodes(model))
        self.model = clone(model)
        for number, node in enumerate(all_nodes(self.model)):
            node.meta[_ORIGIN] = number
        if self.model.functions:
            InlineFunctions().run(self.model)
        if halves:
            widen(self.model, halves)

    def seen_by(self, found: Mapping[str, float]) -> Measured:
        """Return what was measured of the twin as what it says of the model."""
        tops: dict[ir.Value, float] = {}
        seen = frozenset(original for _, original in self._copies())
        for copy, value in self._pairs():
            top = found.get(str(copy.name)) if copy is not None else None
            if top is None or value is None:
                continue
            if self._typing.dtype(value) not in _HALVES:
                tops[value] = max(top, tops.get(value, 0.0))
        return Measured(tops, seen)

    def _pairs(self) -> Iterator[tuple[ir.Value | None, ir.Value | None]]:
        """Yield values of the twin with those that they are copies of, some more than once."""
        graphs = (self.model.graph, self._given.graph)
        yield from zip(*(each.inputs for each in graphs), strict=True)
        yield from zip(*(each.outputs for each in graphs), strict=True)
        for node, original in self._copies():
            yield from zip(node.inputs, original.inputs, strict=False)
            yield from zip(node.outputs, original.outputs, strict=True)

    def _copies(self) -> Iterator[tuple[ir.Node, ir.Node]]:
        for node in self.model.graph:
            if self.model is self._given:
                yield node, node
            elif _ORIGIN in node.meta:
                yield node, self._originals[node.meta[_ORIGIN]]
