"""How large the values inside a model get, measured by running it.

A copy of the model gets, for every float value, its largest magnitude as one more output: one
number each, so that measuring takes no more memory than running.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.names import Names
from vlmpass.ir_tools.run.runner import Runner
from vlmpass.ir_tools.tape import Tape
from vlmpass.ir_tools.types.offline import constant_tensor
from vlmpass.ir_tools.types.typing import solve
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["magnitudes", "overflows"]

_OUTPUTS_AT_ONCE = 2000


def _watched(model: ir.Model) -> Iterator[ir.Value]:
    """Yield the main graph's float32 values that vary, without what only moves others."""
    typing = solve(model)
    for node in model.graph:
        for value in node.outputs:
            named = bool(value.name) and constant_tensor(value) is None
            if named and typing.dtype(value) == ir.DataType.FLOAT:
                yield value


def _instrument(model: ir.Model, names: Sequence[str]) -> dict[str, str]:
    """Add outputs that hold the magnitudes of values; return the value each one measures."""
    values = {v.name: v for node in model.graph for v in node.outputs}
    fresh = Names.of(model)
    zero = ir.tensor([[0.0]], dtype=ir.DataType.FLOAT, name=fresh.value("measure/zero"))
    nothing = ir.Value(
        name=zero.name,
        type=ir.TensorType(zero.dtype),
        shape=ir.Shape([1, 1]),
        const_value=zero,
    )
    model.graph.register_initializer(nothing)
    measures = {}
    for name in names:
        tape = Tape(fresh, model.graph.opset_imports, f"{name}/measure")
        flat = tape.Flatten(tape.Abs(values[name]), axis=0)
        # A number that is always there: ReduceMax fails on an empty tensor.
        measure = tape.ReduceMax(tape.Concat(flat, nothing, axis=1), keepdims=0)
        measure.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.extend(tape.nodes)
        model.graph.outputs.append(measure)
        measures[str(measure.name)] = name
    return measures


def magnitudes(model: ir.Model, feeds: Sequence[Feed]) -> dict[str, float]:
    """Return the largest magnitude of every float32 value of the main graph, by name.

    Args:
        model: A model that ONNX Runtime's CPU runs; it is not changed.
        feeds: Inputs, one run each.

    Raises:
        VerifyError: ONNX Runtime is missing, or does not load or run the model.
    """
    names = [str(value.name) for value in _watched(model)]
    found: dict[str, float] = {}
    for start in range(0, len(names), _OUTPUTS_AT_ONCE):
        copy = model.clone()
        measures = _instrument(copy, names[start : start + _OUTPUTS_AT_ONCE])
        with Runner(copy) as runner:
            for feed in feeds:
                results = runner.run(feed)
                for output, name in measures.items():
                    largest = float(np.asarray(results[output]).reshape(-1)[0])
                    found[name] = max(found.get(name, 0.0), abs(largest))
                    if math.isnan(largest):
                        found[name] = math.inf
    return found


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
