"""What values inside a model are for some inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.feeds import cast_all
from vlmpass.ir_tools.run.participants import Side, computed_in
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["observe"]


def observe(
    model: ir.Model,
    names: Collection[str],
    feed: Mapping[str, Array | Sequence[Array] | None],
    allowance: Allowance,
) -> Feed:
    """Return values of the main graph for some inputs, in memory; bfloat16 in float32.

    Args:
        model: Stays as it is.
        names: Of inputs, weights or what nodes make; others are left out.
        feed: The model's inputs.
        allowance: What running it may take.

    Raises:
        VerifyError: Nothing here runs it.
    """
    side = Side(model, allowance=allowance)
    side.widened = computed_in(model) & {ir.DataType.BFLOAT16}
    shown = clone(side.twin)
    made = {str(v.name): v for node in shown.graph for v in node.outputs if v.name}
    there = {value.name for value in shown.graph.outputs}
    shown.graph.outputs.extend(made[name] for name in names if name in made.keys() - there)
    types = {value.name: value.dtype for value in shown.graph.inputs}
    given = {n: v if v is None or isinstance(v, np.ndarray) else list(v) for n, v in feed.items()}
    with Side(shown, allowance=allowance).open("none") as runner:
        found = runner.run(cast_all(given, types))
        return {
            name: np.array(value) if isinstance(value, np.ndarray) else value
            for name, value in {**given, **found}.items()
            if name in names
        }
