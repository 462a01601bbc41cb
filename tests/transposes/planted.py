"""Defects planted into what moves Transposes, so that tests see the random graphs find them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from vlmpass.passes import move_transposes
from vlmpass.rewriter_rules.permuted import forms, region, turning
from vlmpass.rewriter_rules.permuted.forms import Form

__all__ = ["PLANTS"]

Plant = Callable[[pytest.MonkeyPatch], None]


def _operator(name: str, maker: forms.Maker) -> Plant:
    def apply(patch: pytest.MonkeyPatch) -> None:
        makers = {**forms._makers(), name: maker}
        patch.setattr(forms, "_makers", lambda: makers)

    return apply


def _unchanged(name: str) -> Plant:
    """Attributes and operands that speak of axes stay as they are."""

    def maker(asked: forms._Asked) -> Form | None:
        found = forms._SPECIAL.get(name, forms._reduction)(asked)
        return found and Form(found.turned, found.constants, removed=found.removed)

    return _operator(name, maker)


def _method(place: object, name: str, new: object) -> Plant:
    return lambda patch: patch.setattr(place, name, new)


def _aligned_in_front(tape: object, value: ir.Value, order: forms.Order) -> ir.Value:
    tensor = forms.constant_of(value)
    assert tensor is not None
    sizes = list(tensor.shape.numpy())
    whole = forms.reshape(forms.as_weight(tensor), sizes + [1] * (len(order) - len(sizes)))
    return tape.const(forms.transpose(whole, order), name="c")  # type: ignore[attr-defined]


def _halfway(asked: forms._Asked) -> Form | None:
    """The first constant is turned, and no other."""
    found = forms._elementwise(asked)
    return found and Form(found.turned, ())


AXES = (
    "Concat", "Split", "Softmax", "LogSoftmax", "ArgMax", "CumSum", "TopK", "Gather", "Slice",
    "Pad", "Tile", "Expand", "ReduceMean", "ReduceMax", "Squeeze",
)  # fmt: skip

PLANTS: dict[str, Plant] = {
    **{f"the axes of {name} stay": _unchanged(name) for name in AXES},
    "MatMul works in any order": _operator("MatMul", forms._elementwise),
    "LayerNormalization works in any order": _operator("LayerNormalization", forms._first),
    "constants stay": _operator("Add", _halfway),
    "constants are not turned": _method(turning, "turn_constant", lambda tape, value, order: value),
    "missing axes are the last": _method(turning, "turn_constant", _aligned_in_front),
    "axes that are left are in order": _method(Form, "restores", lambda self, order: True),
    "an order undoes itself": _method(turning, "inverse", lambda order: order),
    "outputs of the graph need no turning back": _method(
        region._Search, "_user", lambda self, node, index: None
    ),
    "every user takes what is turned": _method(
        turning._Work, "_takes_turned", lambda self, user, index: user.graph is self._graph
    ),
    "what is left over stays": _method(move_transposes, "remove_dead", lambda nodes: None),
    "a node of another graph is one of this": _method(
        region._Search, "clashes", lambda self, node, turned: False
    ),
}
