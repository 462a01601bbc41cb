"""Hints for rules of operators whose configurations have a generator of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from unfuse.cases import Case

from rules.instances import Draw, Hints

FLOAT_NAMES = ("float32", "float16", "bfloat16")


def of_cases(
    drawn: Callable[[np.random.Generator], Case],
    fits: Callable[[Case], bool] = lambda case: True,
    used: Sequence[int] = (0,),
    outputs: int = 1,
) -> Hints:
    """Return hints that take inputs and attributes from a generator of cases.

    Args:
        drawn: Draws a case.
        fits: Which cases are taken.
        used: Which outputs are compared.
        outputs: How many there are.
    """
    chosen: dict[int, Case] = {}

    def more(draw: Draw) -> list[ir.Value | None]:
        case = drawn(draw.rng)
        while not fits(case):
            case = drawn(draw.rng)
        chosen.clear()
        chosen[id(draw)] = case
        return [_value(draw, case, name) for name in case.inputs]

    def attributes(draw: Draw) -> Mapping[str, object]:
        return chosen[id(draw)].attributes

    operator = drawn(np.random.default_rng(0)).operator
    opsets = (14, 17, 18, 20, 21, 22, 23)
    hints = {f"{operator}+": more, "node": attributes, "opset": opsets}
    return {**hints, "used": used, "outputs": outputs}


def _value(draw: Draw, case: Case, name: str) -> ir.Value | None:
    given = case.inputs[name]
    if given is None:
        return None
    if given.constant or given.array.dtype.name not in FLOAT_NAMES:
        return draw.constant(given.array)
    return draw.input(given.array.shape, given.array.dtype)
