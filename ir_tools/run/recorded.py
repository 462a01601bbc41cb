"""Does a model compute what was recorded of another one, or of the program it was exported from?"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.run.allowance import Allowance, bounds_of
from vlmpass.ir_tools.run.compare import compare, tolerance_for
from vlmpass.ir_tools.run.feeds import cast_all, is_finite
from vlmpass.ir_tools.run.inputs import arrays_of
from vlmpass.ir_tools.run.participants import computed_in, side_of
from vlmpass.ir_tools.run.request import Inputs, given_inputs, level, runtime
from vlmpass.ir_tools.run.verdict import Trial, Verification
from vlmpass.ir_tools.system.arguments import seconds, wrong
from vlmpass.ir_tools.system.listed import listed
from vlmpass.ir_tools.system.runtime import Optimization, Runtime
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["verify_recorded"]


def verify_recorded(
    outputs: Mapping[str, Array] | str | os.PathLike[str],
    actual: Source,
    *,
    inputs: Inputs,
    tolerance: float | None = None,
    optimization: Optimization | None = None,
    on: Runtime = "onnxruntime",
    allowance: Allowance | None = None,
) -> Verification:
    """Run a model on inputs and compare its outputs with those that were recorded.

    Args:
        outputs: What was recorded: arrays by name, or an ``.npz`` file. Outputs of the model that
            are not among them are not compared, which a note says.
        actual: What is judged: anything that `load` takes.
        inputs, tolerance, optimization, on, allowance: As for `verify`.

    Raises:
        ArgumentError: An argument is of a wrong type.
        VerifyError: The inputs are not those of the model, or it does not run here.
    """
    start = time.perf_counter()
    tolerance = seconds("tolerance", tolerance)
    side = side_of(actual, bounds_of(allowance))
    expected = _recorded(outputs)
    fed = given_inputs(inputs, side.model)
    if fed is None:
        raise wrong("inputs", inputs, "arrays by name or the path of an .npz file")
    types = computed_in(side.model)
    side.runtime = runtime("on", on)
    if side.runtime == "onnxruntime":
        side.widened = types & {ir.DataType.BFLOAT16}
    with side.open(level(optimization) or "basic") as runner:
        made = runner.run(cast_all(fed, side.takes()))
        found = {name: value for name, value in made.items() if name in expected}
        bound = tolerance_for(*(dtype.numpy().name for dtype in types))
        compared = compare(expected, found, tolerance=tolerance, at_least=bound)
    left = [name for name in made if name not in expected]
    notes = (f"not compared, for nothing is recorded: {listed(left)}",) if left else ()
    return Verification(
        all(each.ok for each in compared),
        "recorded",
        side.how,
        (Trial({}, is_finite(expected)),),
        tuple(compared),
        notes=notes,
        seconds=time.perf_counter() - start,
    )


def _recorded(given: Mapping[str, Array] | str | os.PathLike[str]) -> Feed:
    if isinstance(given, (str, os.PathLike)):
        found: Mapping[str, Array] = arrays_of(given)
    elif isinstance(given, Mapping):
        found = {str(name): np.asarray(value) for name, value in given.items()}
    else:
        raise wrong("outputs", given, "arrays by name or the path of an .npz file")
    if not found:
        raise VerifyError("no output is recorded", remedy="numpy.savez writes them by name")
    # numpy stores bfloat16 as raw bytes of the same size.
    return {
        n: v.view(ml_dtypes.bfloat16) if v.dtype.str[1:] == "V2" else v for n, v in found.items()
    }
