"""How large the values inside a model get, measured by running it.

One number for every float value, so that measuring takes no more memory than running. Large models
run segment by segment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.operators.dtypes import end_of
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.attempts import Tried
from vlmpass.ir_tools.run.chain_runner import ChainRunner
from vlmpass.ir_tools.run.gauge import Gauge
from vlmpass.ir_tools.run.inputs import InputPlan
from vlmpass.ir_tools.run.runner import AnyRunner, RunError, Runner, tried_each
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.segments import SEGMENT_BYTES
from vlmpass.ir_tools.types.typing import solve
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["generated_magnitudes", "magnitudes", "overflows", "too_large"]


_MANY_NODES = 4000
"""What ONNX Runtime takes for one graph begins to grow faster than its nodes about here."""


class _Run:
    """Runs a model, sees what a gauge measures and keeps it where that is wanted.

    A model that fits in one session is loaded once.
    """

    def __init__(self, model: ir.Model, allowance: Allowance) -> None:
        self._gauge = Gauge(solve(model), model)
        self._model = model
        self._runner: AnyRunner
        if weight_bytes(model) > SEGMENT_BYTES:
            self._runner = SegmentRunner(model, allowance=allowance)
        elif len(model.graph) > _MANY_NODES:
            self._runner = ChainRunner(model, self._gauge.prepare, allowance)
        else:
            more = self._gauge.prepare(model)
            self._runner = Runner(model, more=more, allowance=allowance)
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
        run = partial(tried_each, running.run)
        tried = Tried(plan, run, _listed, seed, largest=largest)
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
    gauge = Gauge(solve(model), model)
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
    return too_large(twin, magnitudes(twin, feeds), dtype)


def too_large(twin: ir.Model, found: Mapping[str, float], dtype: ir.DataType) -> dict[str, float]:
    """Return what a type is too narrow for of what was measured of a twin, in graph order.

    Args:
        twin: As for `overflows`.
        found: The magnitudes by name.
        dtype: The type that is emulated.
    """
    end = end_of(dtype)
    rounded = (
        str(node.inputs[0].name)
        for node in twin.graph
        if (node.domain, node.op_type) == ("", "Cast")
        and node.inputs[0] is not None
        and node.outputs[0].dtype == dtype
    )
    return {name: found[name] for name in rounded if found.get(name, 0.0) > end}
