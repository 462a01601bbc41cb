"""Wrong rules, each a mistake that somebody could make; the drawn graphs must tell every one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from vlmpass.ir_tools.shapes import cache as alike
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, add, mul, sub
from vlmpass.ir_tools.shapes.call import Call
from vlmpass.ir_tools.shapes.known import Known
from vlmpass.ir_tools.shapes.rules import compute, elementwise
from vlmpass.ir_tools.shapes.rules import movement as layout
from vlmpass.ir_tools.shapes.shape_rules import all_shape_rules

__all__ = ["FAULTS"]

Fault = Callable[[pytest.MonkeyPatch], None]
RULES = all_shape_rules()


def _rule(operator: str, rule: Callable[[Call], Known | Sequence[Known]]) -> Fault:
    return lambda patch: patch.setitem(RULES, ("", operator), rule)


def _like_first(call: Call) -> Known:
    return Known(call.shape(0))


def _changed(operator: str, change: Callable[[Known], Known]) -> Fault:
    """Change what the right rule says of the first output."""
    right = RULES["", operator]

    def wrong(call: Call) -> list[Known]:
        found = right(call)
        knowns = [found] if isinstance(found, Known) else list(found)
        return [change(knowns[0]), *knowns[1:]]

    return _rule(operator, wrong)


def _shape(change: Callable[[tuple[Dim, ...]], tuple[Dim, ...]]) -> Callable[[Known], Known]:
    return lambda known: Known(None if known.shape is None else change(known.shape), known.elements)


def _items(change: Callable[[Dim], Dim]) -> Callable[[Known], Known]:
    def wrong(known: Known) -> Known:
        items = known.elements
        return Known(known.shape, None if items is None else tuple(map(change, items)))

    return wrong


def _attribute(owner: object, name: str, value: object) -> Fault:
    return lambda patch: patch.setattr(owner, name, value)


def _elementwise(
    operator: str, compute_one: Callable[[Call, tuple[Dim, ...]], Dim | None]
) -> Fault:
    return _rule(operator, lambda call: elementwise._computed(call, compute_one))


def _ignores_attributes(node: object, opset: int, inputs: Sequence[object]) -> object:
    return (node.op_type, len(node.outputs), *map(id, inputs))  # type: ignore[attr-defined]


def _first(algebra: Algebra, dims: Sequence[Dim]) -> Dim:
    return next((dim for dim in dims if dim != 1), 1)


FAULTS: dict[str, Fault] = {
    "Transpose keeps the order": _rule("Transpose", _like_first),
    "Concat does not add": _rule("Concat", _like_first),
    "Concat of vectors turned round": _changed(
        "Concat", lambda k: Known(k.shape, None if k.elements is None else k.elements[::-1])
    ),
    "Expand gives its target": _rule("Expand", lambda call: Known(call.elements(1))),
    "Tile does not repeat": _rule("Tile", _like_first),
    "Pad adds nothing": _rule("Pad", _like_first),
    "Flatten swaps": _changed("Flatten", _shape(lambda shape: shape[::-1])),
    "Squeeze keeps one more": _changed("Squeeze", _shape(lambda shape: (*shape, 1))),
    "Unsqueeze puts it last": _changed(
        "Unsqueeze", _shape(lambda s: (*(d for d in s if d != 1), *(d for d in s if d == 1)))
    ),
    "MatMul swaps": _changed("MatMul", _shape(lambda s: (*s[:-2], *s[-2:][::-1]))),
    "Split gives all": _changed("Split", _shape(lambda s: tuple(add(d, 1) for d in s))),
    "ArgMax keeps the axis": _rule("ArgMax", _like_first),
    "TopK keeps the length": _rule("TopK", lambda call: [_like_first(call)] * 2),
    "NonZero swaps": _changed("NonZero", _shape(lambda shape: shape[::-1])),
    "ReduceMean keeps the axis": _rule("ReduceMean", _like_first),
    "ReduceProd is one more": _changed("ReduceProd", _items(lambda item: add(item, 1))),
    "Range is one longer": _changed("Range", _shape(lambda s: tuple(add(d, 1) for d in s))),
    "Shape turned round": _changed(
        "Shape", lambda k: Known(k.shape, None if k.elements is None else k.elements[::-1])
    ),
    "Size is one more": _changed("Size", _items(lambda item: add(item, 1))),
    "Gather of the first": _changed(
        "Gather", lambda k: Known(k.shape, k.elements and k.elements[:1] * len(k.elements))
    ),
    "Gather drops the axis": _rule("Gather", _like_first),
    "CumSum like its axis": _rule("CumSum", lambda call: Known(call.shape(1))),
    "Slice takes all": _rule("Slice", lambda call: Known(call.shape(0))),
    "Slice never clamps": _attribute(layout, "_clamped", lambda algebra, index, size: index),
    "ConstantOfShape turned round": _changed("ConstantOfShape", _shape(lambda s: s[::-1])),
    "Div rounds down": _elementwise(
        "Div", lambda call, i: None if i[1] == 0 else call.algebra.floordiv(*i)
    ),
    "Mod is the dividend": _elementwise("Mod", lambda call, items: items[0]),
    "Sub turned round": _elementwise("Sub", lambda call, items: sub(items[1], items[0])),
    "Mul adds": _elementwise("Mul", lambda call, items: add(items[0], items[1])),
    "Add multiplies": _elementwise("Add", lambda call, items: mul(items[0], items[1])),
    "Max is Min": _rule("Max", RULES["", "Min"]),
    "Neg does nothing": _rule("Neg", RULES["", "Identity"]),
    "Abs does nothing": _rule("Abs", RULES["", "Identity"]),
    "Less holds always": _elementwise("Less", lambda call, items: 1),
    "Equal holds never": _elementwise("Equal", lambda call, items: 0),
    "Where takes the first": _elementwise("Where", lambda call, items: items[1]),
    "Clip does nothing": _rule("Clip", RULES["", "Identity"]),
    "broadcast takes the first": _attribute(Algebra, "broadcast", _first),
    "maximum takes the first": _attribute(Algebra, "maximum", lambda self, a, b: a),
    "minimum takes the first": _attribute(Algebra, "minimum", lambda self, a, b: a),
    "floordiv rounds up": _attribute(
        Algebra, "floordiv", lambda self, a, b: -(-a // b) if isinstance(a, int) else a
    ),
    "all sizes are positive": _attribute(Algebra, "positive", lambda self, dim: True),
    "If takes one branch": _rule(
        "If",
        lambda call: [
            call.facts[value] for value in call.node.attributes["then_branch"].as_graph().outputs
        ],
    ),
    "alike whatever the attributes": _attribute(
        alike.Alike, "key", staticmethod(_ignores_attributes)
    ),
    "windows never overlap the end": _attribute(
        compute, "_window", lambda call, size, *rest: size
    ),
    "axes of one input are one": lambda patch: patch.setattr(
        Algebra, "axis", _same_axis(Algebra.axis)
    ),
}  # fmt: skip


def _same_axis(right: Callable[..., Dim]) -> Callable[..., Dim]:
    return lambda self, value, axis, low=0: right(self, value, 0, low)
