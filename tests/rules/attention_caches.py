"""Attention with caches and causal masks, as exporters spell them and as nobody should."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rules.attention_spellings import DEPTH, node
from rules.instances import Draw, Hints

__all__ = ["CAUSAL", "PAST", "PAST_OWN", "SIZE"]

COMPARISONS = ("LessOrEqual", "Less", "GreaterOrEqual", "Greater")


def _ints(draw: Draw, *numbers: int) -> ir.Value:
    return draw.constant(np.array(numbers))


def _past(draw: Draw) -> int:
    """How many tokens there were before, perhaps none."""
    return int(draw.sizes.setdefault("p", int(draw.rng.integers(0, 4))))


def _keys(draw: Draw) -> int:
    """How many keys are new: as many as queries, or not."""
    same = draw.chosen.setdefault("square", draw.rng.random() < 0.85)
    return draw.dim("s") if same else draw.dim("t")


def _joined_by_heads(draw: Draw) -> bool:
    """Whether what is joined is twice as many heads, and no longer; so that it still runs."""
    if "heads" not in draw.chosen:
        draw.chosen["heads"] = draw.rng.random() < 0.15 and draw.rule.name.startswith("past")
        if draw.chosen["heads"]:
            draw.chosen["axis"] = draw.chosen["along"] = 1
    return bool(draw.chosen["heads"])


def query(draw: Draw) -> ir.Value:
    heads = draw.dim("k") * draw.dim("r") * (2 if _joined_by_heads(draw) else 1)
    return draw.input((draw.dim("b"), heads, draw.dim("s"), DEPTH), draw.dtype)


def _part(draw: Draw, length: int) -> ir.Value:
    return draw.input((draw.dim("b"), draw.dim("k"), length, DEPTH), draw.dtype)


def key(draw: Draw) -> ir.Value:
    return _part(draw, _keys(draw))


def past(draw: Draw) -> ir.Value:
    return _part(draw, _keys(draw) if _joined_by_heads(draw) else _past(draw))


def _cut_elsewhere(draw: Draw) -> bool:
    """Whether values of before are as many as new keys, and the other way round."""
    return bool(draw.chosen.setdefault("cut", draw.rng.random() < 0.15)) and _past(draw) > 0


def value_joined(draw: Draw) -> ir.Value:
    return _part(draw, _past(draw)) if _cut_elsewhere(draw) else key(draw)


def past_value_joined(draw: Draw) -> ir.Value:
    return _part(draw, _keys(draw)) if _cut_elsewhere(draw) else past(draw)


def _whole(draw: Draw) -> int:
    """How many keys there are in all."""
    given = any(name in draw.made for name in ("past_key", "past_value"))
    return _keys(draw) + (_past(draw) if given else 0)


def added(draw: Draw) -> ir.Value:
    """A mask of scores, of numbers."""
    first = int(draw.choose((1, draw.dim("b"))))  # type: ignore[call-overload]
    columns = _keys(draw) + (0 if _joined_by_heads(draw) else _past(draw))
    shape = (first, 1, draw.dim("s"), columns)
    return draw.input(shape, draw.dtype)


def _size(draw: Draw, name: str, axis: int) -> ir.Value:
    """The size of an axis of an operand, as a number: computed, or written down."""
    value = draw.made[name]
    assert isinstance(value, ir.Value)
    assert value.shape is not None
    if draw.rng.random() < 0.2:
        return draw.constant(np.array(value.shape[axis]))
    shape = node(draw, "Shape", value)
    if draw.rng.random() < 0.5:
        return node(draw, "Gather", shape, draw.constant(np.array(axis)))
    return node(
        draw, "Squeeze", node(draw, "Slice", shape, _ints(draw, axis), _ints(draw, axis + 1))
    )


def _number(draw: Draw, number: int) -> ir.Value:
    return draw.constant(np.array(number))


def _before(draw: Draw) -> ir.Value:
    """Where queries begin: after the past, at the end of all keys, at 0, or off by one."""
    given = isinstance(draw.made.get("past_key"), ir.Value)
    forms = ("none", "past", "past", "past", "one more") if given else ("none", "none", "one more")
    form = str(draw.choose(forms))
    if form == "none":
        return _number(draw, 0)
    start = _size(draw, "past_key", 2) if given else _number(draw, 0)
    return node(draw, "Add", start, _number(draw, 1)) if form == "one more" else start


def _places(draw: Draw) -> tuple[ir.Value, ir.Value]:
    """Places of keys, [1, 1, 1, n], and of queries, [1, 1, m, 1]."""
    zero, one, queries = _number(draw, 0), _number(draw, 1), _size(draw, "query", 2)
    before = _before(draw)
    whole = queries
    if isinstance(draw.made.get("past_key"), ir.Value):
        whole = node(draw, "Add", _size(draw, "past_key", 2), _size(draw, "key", 2))
    first = one if draw.rng.random() < 0.1 else zero
    end = whole if draw.rng.random() < 0.9 else node(draw, "Add", whole, one)
    keys = node(draw, "Range", first, end, one)
    if draw.rng.random() < 0.5:
        rows = node(draw, "Add", node(draw, "Range", zero, queries, one), before)
    else:
        rows = node(draw, "Range", before, node(draw, "Add", queries, before), one)
    axes = [(0, 1, 2), (0, 1, 3)]
    if draw.rng.random() < 0.1:
        axes.reverse()
    wide = [
        node(draw, "Unsqueeze", x, _ints(draw, *at))
        for x, at in zip((keys, rows), axes, strict=True)
    ]
    return wide[0], wide[1]


def _triangle(draw: Draw) -> ir.Value:
    """A triangle of a table of ones."""
    sizes = node(draw, "Concat", *(
        node(draw, "Reshape", each, _ints(draw, 1))
        for each in (_size(draw, "query", 2), _size(draw, "key", 2))
    ), axis=0)  # fmt: skip
    ones = node(draw, "Expand", draw.constant(np.array(True)), sizes)
    upper = int(draw.rng.random() < 0.3)
    diagonal = draw.constant(np.array(int(draw.choose((0, 0, upper, 1, -1)))))  # type: ignore[call-overload]
    made = node(draw, "Trilu", ones, diagonal, upper=upper)
    return node(draw, "Not", made) if upper and draw.rng.random() < 0.9 else made


def _table(draw: Draw) -> ir.Value:
    rows, columns = draw.dim("s"), _whole(draw)
    more = int(draw.choose((0, 0, 0, 1, -1)))  # type: ignore[call-overload]
    return draw.constant(np.tri(rows, columns, columns - rows + more, dtype=bool))


def _compared(draw: Draw) -> ir.Value:
    keys, queries = _places(draw)
    if draw.rng.random() < 0.1:
        near = node(draw, "Greater", keys, node(draw, "Sub", queries, _number(draw, 2)))
        return node(draw, "And", node(draw, "LessOrEqual", keys, queries), near)
    operator = str(draw.choose(COMPARISONS))
    right = {"LessOrEqual": (0, 0), "Greater": (0, 1), "GreaterOrEqual": (1, 0), "Less": (1, 1)}
    turned, negated = right[operator]
    if draw.rng.random() < 0.1:
        turned = 1 - turned
    made = node(draw, operator, *((queries, keys) if turned else (keys, queries)))
    return node(draw, "Not", made) if negated and draw.rng.random() < 0.95 else made


def mask(draw: Draw) -> ir.Value:
    """A mask that may be causal: a condition, or numbers that are added."""
    for name, make in (("query", query), ("key", key)):
        if name not in draw.made:
            draw.made[name] = make(draw)
    form = draw.choose((_compared, _compared, _compared, _triangle, _table))
    condition = form(draw)  # type: ignore[operator]
    if draw.rng.random() < 0.3:
        sizes = _ints(draw, draw.dim("b"), 1, 1, 1)
        condition = node(draw, "Expand", condition, sizes)
    if draw.rng.random() < 0.2:
        return condition
    low = -np.inf if draw.dtype == np.float16 else draw.choose((-np.inf, -3.4e38, -1e9, -5.0))
    ends = [draw.constant(np.asarray(each, draw.dtype)) for each in (0.0, low)]
    if draw.rng.random() < 0.1:
        ends.reverse()
    numbers = node(draw, "Where", condition, *ends)
    return numbers if draw.rng.random() < 0.7 else _guarded(draw, numbers)


def _guarded(draw: Draw, numbers: ir.Value) -> ir.Value:
    """NaN in rows of which nothing is left, or a floor, which may be none."""
    if draw.rng.random() < 0.5:
        floor = draw.constant(
            np.asarray(-1e10 if draw.dtype != np.float16 else -np.inf, draw.dtype)
        )
        return node(draw, "Max", numbers, floor)
    highest = node(draw, "ReduceMax", numbers, _ints(draw, -1))
    nothing = node(draw, "Equal", highest, draw.constant(np.asarray(-np.inf, draw.dtype)))
    return node(draw, "Where", nothing, draw.constant(np.asarray(np.nan, draw.dtype)), numbers)


def scaled(draw: Draw) -> dict[str, object]:
    return {"scale": 0.5}


def _rows(draw: Draw) -> ir.Value:
    """Queries as ONNX Runtime's own operator has them, heads beside one another."""
    heads = draw.dim("k") * (2 if _joined_by_heads(draw) else 1)
    return draw.input((draw.dim("b"), draw.dim("s"), heads * DEPTH), draw.dtype)


def _own(draw: Draw) -> dict[str, object]:
    heads = draw.dim("k") * (2 if _joined_by_heads(draw) else 1)
    return {"num_heads": heads, "scale": 0.5}


KINDS: Sequence[str] = ("float32", "float16")
_OPERANDS: Hints = {"key": key, "value": key, "past_key": past, "past_value": past}
_JOINED: Hints = {
    **_OPERANDS, "value": value_joined, "past_value": past_value_joined, "axis": [2, -2],
    "along": [2, -2], "core": scaled,
}  # fmt: skip

CAUSAL: Hints = {
    **_OPERANDS, "query": query, "mask": mask, "core": scaled, "outputs": 3,
    "dtypes": KINDS, "opset": (23, 24),
}  # fmt: skip


def _end(draw: Draw) -> int:
    """Where the sizes asked for end; attention takes the joined in, or something else does."""
    joined = draw.made["joined"]
    assert isinstance(joined, ir.Value)
    taken = node(draw, *(("Attention", query(draw), joined, joined) if draw.rng.random() < 0.9
                         else ("Relu", joined)))  # fmt: skip
    draw.graph.outputs.append(taken)
    start = draw.chosen["start"]
    assert isinstance(start, int)
    return start + int(draw.rng.random() < 0.9)


SIZE: Hints = {
    "before": past, "now": key, "axis": [2, -2], "start": [2, 2, -2, -2, 1, -1], "end": _end,
    "dtypes": KINDS, "opset": (23, 24),
}  # fmt: skip
PAST: Hints = {
    **_JOINED, "query": query, "mask": added, "dtypes": KINDS, "opset": (23, 24),
}  # fmt: skip
PAST_OWN: Hints = {
    **_JOINED, "query": _rows, "bias": added, "core": _own, "dtypes": ("float32",),
    "opset": (17, 21),
}  # fmt: skip
