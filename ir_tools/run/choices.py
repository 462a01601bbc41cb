"""Where two models choose differently: other elements are picked, as scores nearly tie.

A router of experts picks the largest of its scores. Where two of them lie closer to each other than
arithmetic keeps apart, rounding decides, and what follows is something else altogether.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.runner import Runner
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["strayed"]

_PICKS = {"TopK": 1, "ArgMax": 0, "ArgMin": 0}
"""Which output has the positions that an operator picks."""


_NEAR = 0.02
"""Scores closer than this share of the largest nearly tie: some layers of rounding bridge it."""


@dataclass(frozen=True)
class _Choice:
    """A node of the main graph that picks elements by their size, in both models."""

    node: ir.Node
    axis: int

    @property
    def scores(self) -> str:
        return str(self.node.inputs[0].name) if self.node.inputs[0] is not None else ""

    @property
    def picks(self) -> str:
        return str(self.node.outputs[_PICKS[self.node.op_type]].name)


def strayed(
    a: ir.Model, b: ir.Model, feeds: Sequence[tuple[Feed, Feed]], allowance: Allowance
) -> str:
    """Say which node is the first to pick other elements in the second model, and how near it was.

    Args:
        a: The reference, as ONNX Runtime runs it.
        b: What is judged, its values named alike.
        feeds: Inputs of both.
        allowance: What running each may take.

    Returns:
        A phrase; empty where all nodes pick the same, or what the first one picks is no near thing,
        so that the fault lies before it.

    Raises:
        VerifyError: One of them does not run.
    """
    made = {value.name for node in b.graph for value in node.outputs}
    choices = [each for each in _choices(a) if each.picks in made]
    if not choices:
        return ""
    picks = [each.picks for each in choices]
    seen = dict.fromkeys([*picks, *(each.scores for each in choices)])
    with _showing(a, seen, allowance) as first, _showing(b, picks, allowance) as second:
        ran = [({**one, **first.run(one)}, second.run(other)) for one, other in feeds]
    for in_order in (False, True):
        told = (_others(each, *pair, in_order=in_order) for pair in ran for each in choices)
        earliest = next((each for each in told if each is not None), None)
        if earliest is not None:
            return earliest
    return ""


def _choices(model: ir.Model) -> list[_Choice]:
    return [
        _Choice(node, node.attributes.get_int("axis", -1 if node.op_type == "TopK" else 0))
        for node in model.graph
        if not node.domain
        and node.op_type in _PICKS
        and node.inputs[0] is not None
        and not node.inputs[0].is_initializer()
        and node.outputs[_PICKS[node.op_type]].name
    ]


def _showing(model: ir.Model, names: Iterable[str], allowance: Allowance) -> Runner:
    """Return a runner that gives interior values out too."""
    shown = clone(model)
    values = {value.name: value for node in shown.graph for value in node.outputs}
    given = {value.name for value in (*shown.graph.inputs, *shown.graph.outputs)}
    shown.graph.outputs.extend(values[name] for name in names if name in values.keys() - given)
    return Runner(shown, optimization="basic", allowance=allowance)


def _others(choice: _Choice, expected: Feed, found: Feed, *, in_order: bool) -> str | None:
    """Say in how many rows others were picked, or in another order; None if in no row."""
    one, two = (_picked(choice, each) for each in (expected, found))
    scores = np.asarray(expected[choice.scores]).astype(np.float64)
    if one.shape != two.shape:
        return None
    if not in_order:
        one, two = np.sort(one, choice.axis), np.sort(two, choice.axis)
    rows = (one != two).any(axis=choice.axis)
    if not rows.any():
        return None
    passed = [np.take_along_axis(scores, each, choice.axis) for each in (one, two)]
    if not in_order:
        passed = [np.sort(each, choice.axis) for each in passed]
    gap, top = np.abs(passed[0] - passed[1]).max(), np.abs(passed[0]).max()
    if not gap <= _NEAR * top:
        return ""
    what = "in another order" if in_order else "others"
    return (
        f"{name_node(choice.node)} picks {what} in {rows.sum()} of {rows.size} rows, "
        f"from scores of up to {top:.1e} that lie {gap:.1e} apart or less"
    )


def _picked(choice: _Choice, made: Feed) -> npt.NDArray[np.int64]:
    """Return the positions, the axis that they lie on among their own."""
    found = np.asarray(made[choice.picks]).astype(np.int64)
    keeps = choice.node.op_type == "TopK" or choice.node.attributes.get_int("keepdims", 1) == 1
    return found if keeps else np.expand_dims(found, choice.axis)
