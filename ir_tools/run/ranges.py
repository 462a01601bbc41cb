"""How large the values inside a model get, measured by running it.

A copy of the model gets, for every float value, its largest magnitude as one more output: one
number each, so that measuring takes no more memory than running. It runs segment by segment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.names import Names
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.segments import SEGMENT_BYTES
from vlmpass.ir_tools.tape import Tape
from vlmpass.ir_tools.types.offline import constant_tensor
from vlmpass.ir_tools.types.typing import Typing, solve
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["magnitudes", "overflows"]


class _Gauge:
    """Measures the main graph's float32 values that vary, without what only moves others.

    Attributes:
        found: The largest magnitude so far of every value, by name.
    """

    def __init__(self, typing: Typing, model: ir.Model) -> None:
        self.found: dict[str, float] = {}
        self._names = [
            str(value.name)
            for node in model.graph
            for value in node.outputs
            if value.name
            and constant_tensor(value) is None
            and typing.dtype(value) == ir.DataType.FLOAT
        ]
        self._measures: dict[str, str] = {}

    def prepare(self, segment: ir.Model) -> None:
        """Add outputs that hold the magnitudes of values."""
        here = {value.name: value for node in segment.graph for value in node.outputs}
        fresh = Names.of(segment)
        zero = ir.tensor([[0.0]], dtype=ir.DataType.FLOAT, name=fresh.value("measure/zero"))
        nothing = ir.Value(
            name=zero.name, type=ir.TensorType(zero.dtype), shape=ir.Shape([1, 1]), const_value=zero
        )
        segment.graph.register_initializer(nothing)
        self._measures = {}
        for name in self._names:
            if name in here:
                self._measures[_measure(segment, here[name], nothing, fresh)] = name

    def see(self, results: Feed) -> None:
        """Take the magnitudes of one run."""
        for output, name in self._measures.items():
            self.note(name, float(np.asarray(results[output]).reshape(-1)[0]))

    def note(self, name: str, largest: float) -> None:
        """Remember a magnitude; NaN counts as infinite."""
        largest = math.inf if math.isnan(largest) else abs(largest)
        self.found[name] = max(self.found.get(name, 0.0), largest)


def _measure(segment: ir.Model, value: ir.Value, nothing: ir.Value, fresh: Names) -> str:
    """Add the magnitude of a value to a model's outputs and return that output's name."""
    tape = Tape(fresh, segment.graph.opset_imports, f"{value.name}/measure")
    flat = tape.Flatten(tape.Abs(value), axis=0)
    # A number that is always there: ReduceMax fails on an empty tensor.
    measure = tape.ReduceMax(tape.Concat(flat, nothing, axis=1), keepdims=0)
    measure.type = ir.TensorType(ir.DataType.FLOAT)
    segment.graph.extend(tape.nodes)
    segment.graph.outputs.append(measure)
    return str(measure.name)


def magnitudes(
    model: ir.Model, feeds: Sequence[Feed], *, budget: int = SEGMENT_BYTES
) -> dict[str, float]:
    """Return the largest magnitude of every float32 value of the main graph, by name.

    The model runs in segments, so that it may be larger than memory.

    Args:
        model: A model that ONNX Runtime's CPU runs; it is not changed.
        feeds: Inputs, one run each.
        budget: Bytes of weights that are in memory at a time, or those of one node if it has more.

    Raises:
        VerifyError: ONNX Runtime is missing, or does not load or run the model.
    """
    gauge = _Gauge(solve(model), model)
    for feed in feeds:
        for name, given in feed.items():
            if isinstance(given, np.ndarray) and given.dtype == np.float32 and given.size:
                gauge.note(name, float(np.abs(given).max()))
    with SegmentRunner(model, budget=budget) as runner:
        runner.run_all(feeds, gauge)
    return gauge.found


def overflows(twin: ir.Model, feeds: Sequence[Feed], dtype: ir.DataType) -> dict[str, float]:
    """Return the values that a type is too narrow for, with their magnitudes, in graph order.

    Args:
        twin: A model that computes in float32 and casts what is to be rounded to the type.
        feeds: Inputs, one run each.
        dtype: The type that is emulated.

    Raises:
        VerifyError: ONNX Runtime is missing, or does not load or run the model.
    """
    end = float(ml_dtypes.finfo(dtype.numpy()).max)  # type: ignore[no-untyped-call]
    rounded = {
        str(node.inputs[0].name)
        for node in twin.graph
        if (node.domain, node.op_type) == ("", "Cast")
        and node.inputs[0] is not None
        and node.outputs[0].dtype == dtype
    }
    found = magnitudes(twin, feeds)
    return {name: top for name, top in found.items() if top > end and name in rounded}
