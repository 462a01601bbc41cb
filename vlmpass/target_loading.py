"""Whether the runtime of a target loads a result, where that is installed and another than ours."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.run import Allowance, RunError
from vlmpass.ir_tools.run.loading import EXACT_BYTES
from vlmpass.ir_tools.run.runner import Runner
from vlmpass.ir_tools.system.runtime import RUNTIME_NAMES, Runtime, require_runtime
from vlmpass.ir_tools.targets import Profile

__all__ = ["LOAD_SECONDS", "load_there"]

LOAD_SECONDS = 120.0
"""How long loading there may take where no time is asked for: it may be compiling."""

_LARGE = 1 << 20  # bytes of a weight that shape no other value


def load_there(model: ir.Model, target: Profile, allowance: Allowance) -> str:
    """Return what the runtime of a target makes of a result, in a few words.

    A result of more weights than a few is tried with the large ones as inputs first, which takes
    neither time nor memory; what that does not show is tried as it is.

    Args:
        model: The result; it is not changed.
        target: What it is for; it names the runtime that loads it.
        allowance: What loading may take.

    Raises:
        VerifyError: It is installed, and does not load it.
    """
    runtime = target.loader
    assert runtime is not None
    name = RUNTIME_NAMES[runtime]
    try:
        require_runtime(runtime)
    except VerifyError as error:
        return f"not loaded by {name}: {error.problem}; {error.remedy}"
    if _is_large(model, runtime) and _why_not(_fed(model), runtime, allowance) is None:
        return f"{name} loads it, tried with its large weights as inputs"
    found = _why_not(model, runtime, allowance)
    if found is None:
        return f"{name} loads it"
    if not isinstance(found, RunError) or found.is_stop:
        return f"not loaded by {name}: {found}"
    raise VerifyError(
        f"{target.name} does not load the result: {found.problem}",
        remedy=f"convert without --target {target.asked}; --no-verify writes it all the same",
    )


def _why_not(model: ir.Model, runtime: Runtime, allowance: Allowance) -> VerifyError | None:
    """Return why a runtime does not load a model, or why that cannot be tried."""
    try:
        with Runner(model, backend=runtime, optimization="all", allowance=allowance):
            return None
    except VerifyError as error:
        return error


def _is_large(model: ir.Model, runtime: Runtime) -> bool:
    """Whether a model is first tried without its weights, of which ONNX Runtime maps all."""
    return runtime != "ort-web-wasm" and weight_bytes(model) > EXACT_BYTES


def _fed(model: ir.Model) -> ir.Model:
    """Return a model that takes its large weights as inputs."""
    found = clone(model)
    graph = found.graph
    outputs = set(graph.outputs)
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _LARGE or value in outputs:
            continue
        del graph.initializers[str(value.name)]
        value.const_value = None
        if value not in graph.inputs:
            graph.inputs.append(value)
    return found
