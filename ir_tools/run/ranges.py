"""How large the values inside a model get, measured by running it.

A copy of the model gets, for every float value, its largest magnitude as one more output: one
number each, so that measuring takes no more memory than running. It runs segment by segment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.operators.dtypes import end_of
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.attempts import Tried
from vlmpass.ir_tools.run.inputs import InputPlan
from vlmpass.ir_tools.run.runner import AnyRunner, RunError, Runner
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.segments import SEGMENT_BYTES
from vlmpass.ir_tools.types.typing import Typing, solve
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["generated_magnitudes", "magnitudes", "overflows"]


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
            and constant_of(value) is None
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

    def see_inputs(self, feed: Feed) -> None:
        """Take the magnitudes of what is fed."""
        for name, given in feed.items():
            if isinstance(given, np.ndarray) and given.dtype == np.float32 and given.size:
                self.note(name, float(np.abs(given).max()))

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


class _Run:
    """Runs a model, sees what a gauge measures and keeps it where that is wanted.

    A model that fits in one session is loaded once.
    """

    def __init__(self, model: ir.Model, allowance: Allowance) -> None:
        self._gauge = _Gauge(solve(model), model)
        self._model = model
        self._runner: AnyRunner
        if weight_bytes(model) > SEGMENT_BYTES:
            self._runner = SegmentRunner(model, allowance=allowance)
        else:
            whole = clone(model)
            self._gauge.prepare(whole)
            self._runner = Runner(whole, allowance=allowance)
        self.found: dict[str, float] = {}

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def run(self, feed: Feed) -> Feed:
        """Return the model's outputs for one set of inputs."""
        self._gauge.found = {}
        self._gauge.see_inputs(feed)
        if isinstance(self._runner, SegmentRunner):
            return self._runner.run_all([feed], self._gauge)[0]
        made = self._runner.run(feed)
        self._gauge.see(made)
        return {str(value.name): made[str(value.name)] for value in self._model.graph.outputs}

    def keep(self) -> None:
        """Remember what was measured last."""
        for name, top in self._gauge.found.items():
            self.found[name] = max(self.found.get(name, 0.0), top)


def generated_magnitudes(
    model: ir.Model, allowance: Allowance, largest: float = math.inf, seed: int = 0
) -> tuple[dict[str, float], RunError | None]:
    """Return the magnitudes for generated inputs, those among them that are hard on narrow types.

    Args:
        model: A model that ONNX Runtime's CPU runs; it is not changed.
        allowance: What it may take.
        largest: What the outputs will hold: hard inputs that lead beyond are left out.
        seed: Of the inputs.

    Returns:
        The largest magnitudes by name, and what ended the measuring early, if anything.

    Raises:
        VerifyError: ONNX Runtime is missing, or does not load the model or run it on any inputs, or
            gives nothing finite.
    """
    plan = InputPlan(model)
    with _Run(model, allowance) as running:
        tried = Tried(plan, running.run, _listed, seed, largest=largest)
        try:
            for ran in itertools.chain(tried.plausible(), tried.hard()):
                if ran.trial.finite:  # of others nothing tells what is large and what is wrong
                    running.keep()
        except RunError as error:
            if not error.is_stop or not running.found:
                raise
            return running.found, error
        if not running.found:
            raise VerifyError(
                "every generated input makes NaN or infinity of an output",
                remedy="give inputs with calibrate=file.npz",
            )
        return running.found, None


def _listed(feed: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
    return {n: v if v is None or isinstance(v, np.ndarray) else list(v) for n, v in feed.items()}


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
        gauge.see_inputs(feed)
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
    end = end_of(dtype)
    rounded = {
        str(node.inputs[0].name)
        for node in twin.graph
        if (node.domain, node.op_type) == ("", "Cast")
        and node.inputs[0] is not None
        and node.outputs[0].dtype == dtype
    }
    found = magnitudes(twin, feeds)
    return {name: top for name, top in found.items() if top > end and name in rounded}
