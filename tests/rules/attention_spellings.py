"""Attention as exporters spell it, at random: scale, masks, repeats and layouts of heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rules.instances import Draw

__all__ = ["DEPTH", "keys_turned", "node", "rows", "values"]

DEPTH = 4
"""Size of a head."""


def node(draw: Draw, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
    given = [ir.convenience.convert_attribute(k, v) for k, v in attributes.items()]  # type: ignore[arg-type]
    return draw.place(ir.Node("", op_type, inputs, given))


def _number(draw: Draw, number: float) -> ir.Value:
    return draw.constant(np.asarray(number, draw.dtype))


def _ints(draw: Draw, *numbers: int) -> ir.Value:
    return draw.constant(np.array(numbers))


def _sizes(draw: Draw) -> tuple[int, int, int, int, int]:
    """Batch, heads of keys, times that they are repeated, queries, keys."""
    batch, heads, times, queries, keys = (draw.dim(name) for name in "bkrst")
    return batch, heads, times, queries, keys


def repeated(draw: Draw, x: ir.Value, length: int, *, form: str) -> ir.Value:
    """Repeat each head in its place: [batch, heads, n, size] has heads times as many heads then."""
    batch, heads, times, _, _ = _sizes(draw)
    if times == 1:
        return x
    apart = node(draw, "Unsqueeze", x, _ints(draw, 2))
    if form == "Expand":
        wide = node(draw, "Expand", apart, _ints(draw, batch, heads, times, length, DEPTH))
    elif form == "Tile":
        wide = node(draw, "Tile", apart, _ints(draw, 1, 1, times, 1, 1))
    else:
        wide = node(draw, "Concat", *[apart] * times, axis=2)
    return node(draw, "Reshape", wide, _ints(draw, batch, heads * times, -1, DEPTH))


def keys_turned(draw: Draw, form: str) -> ir.Value:
    """Keys, repeated and turned: [batch, heads, size, keys]."""
    batch, heads, times, _, keys = _sizes(draw)
    if times == 1 and draw.rng.random() < 0.5:
        x = draw.input((batch, keys, heads, DEPTH), draw.dtype)
        return node(draw, "Transpose", x, perm=[0, 2, 3, 1])
    x = repeated(draw, draw.input((batch, heads, keys, DEPTH), draw.dtype), keys, form=form)
    if draw.rng.random() < 0.85:
        return node(draw, "Transpose", x, perm=[0, 1, 3, 2])
    flat = node(draw, "Reshape", x, _ints(draw, -1, keys, DEPTH))
    turned = node(draw, "Transpose", flat, perm=[0, 2, 1])
    return node(draw, "Reshape", turned, _ints(draw, batch, heads * times, DEPTH, keys))


def values(draw: Draw) -> ir.Value:
    """Values for `rows`, which must be drawn before or after with the same sizes."""
    batch, heads, _, _, _ = _sizes(draw)
    length = _columns(draw)
    form = str(draw.chosen.setdefault("repeat", draw.choose(("Expand", "Tile", "Concat"))))
    return repeated(draw, draw.input((batch, heads, length, DEPTH), draw.dtype), length, form=form)


def _scaled(draw: Draw, x: ir.Value, factor: float) -> ir.Value:
    if draw.rng.random() < 0.5:
        return node(draw, "Mul", x, _number(draw, factor))
    return node(draw, "Div", x, _number(draw, 1 / factor))


def _mask_shape(draw: Draw) -> Sequence[int]:
    """A shape that broadcasts with scores; where these have one row or column, perhaps of more."""
    batch, heads, times, queries, _ = _sizes(draw)
    rows, columns = queries, _columns(draw)
    if queries == 1 and draw.chosen.setdefault("more rows", draw.rng.random() < 0.3):
        rows = draw.dim("rows")
    shapes = [
        (batch, 1, rows, columns), (batch, heads * times, rows, columns), (1, 1, rows, columns),
        (rows, columns), (batch, 1, 1, columns), (heads * times, rows, columns), (columns,),
        (batch, 1, rows, 1), (),
    ]  # fmt: skip
    return shapes[int(draw.rng.integers(len(shapes)))]


def _columns(draw: Draw) -> int:
    """Return how many columns masks have, and values there are, where there may be one key."""
    keys = draw.dim("t")
    one = keys == 1 and draw.chosen.setdefault("more columns", draw.rng.random() < 0.3)
    return draw.dim("columns") if one else keys


def _lows(draw: Draw) -> Sequence[float]:
    """Numbers that exporters mask with; half has no others that are as low."""
    lowest = float(np.finfo(draw.dtype).min)
    return (-np.inf, lowest) if draw.dtype == np.float16 else (-np.inf, lowest, -1e9, -1e9, -3e38)


def _masked(draw: Draw, scores: ir.Value) -> ir.Value:
    """Scores with up to two masks, of any forms, one after the other."""
    count = int(draw.choose((0, 1, 1, 1, 2, 2)))  # type: ignore[call-overload]
    for _ in range(count):
        scores = _with_mask(draw, scores)
    return scores


def _with_mask(draw: Draw, scores: ir.Value) -> ir.Value:
    """Scores with a mask of some form: added, chosen from numbers, or a Where around scores."""
    shape, low = _mask_shape(draw), float(draw.choose(_lows(draw)))  # type: ignore[arg-type]
    forms = ("added", "running", "numbers", "where", "turned", "constant", "bools")
    form = str(draw.choose(forms))
    if form == "added":
        return node(draw, "Add", scores, draw.input(shape, draw.dtype))
    if form == "constant":
        numbers = np.where(draw.rng.random(shape) < 0.5, 0, low).astype(draw.dtype)
        return node(draw, "Add", draw.constant(numbers), scores)
    condition = draw.input(shape, np.dtype(np.bool_))
    if form == "bools":
        kept = node(draw, "Cast", condition, to=int(ir.DataType.from_numpy(draw.dtype)))
        far = _number(draw, max(low, float(np.finfo(draw.dtype).min)))
        numbers = node(draw, "Mul", node(draw, "Sub", _number(draw, 1.0), kept), far)
        return node(draw, "Add", scores, numbers)
    ends = [scores, _number(draw, low)]
    if form in ("numbers", "running"):
        zero = form == "numbers"
        ends[0] = _number(draw, 0.0) if zero else draw.input(shape, draw.dtype)
        return node(draw, "Add", scores, node(draw, "Where", condition, *ends))
    return node(draw, "Where", condition, *(ends if form == "where" else reversed(ends)))


def rows(draw: Draw) -> ir.Value:
    """Scores before their Softmax, [batch, heads, queries, keys]."""
    batch, heads, times, queries, _ = _sizes(draw)
    form = str(draw.chosen.setdefault("repeat", draw.choose(("Expand", "Tile", "Concat"))))
    query = draw.input((batch, heads * times, queries, DEPTH), draw.dtype)
    turned = keys_turned(draw, form)
    place = str(draw.choose(("none", "query", "key", "roots", "scores")))
    if place in ("query", "roots"):
        query = _scaled(draw, query, 0.7 if place == "roots" else 0.5)
    if place in ("key", "roots"):
        turned = _scaled(draw, turned, 0.7 if place == "roots" else 0.5)
    scores = node(draw, "MatMul", query, turned)
    if place == "scores":
        scores = _scaled(draw, scores, 0.5)
    if draw.dtype != np.float16 and draw.rng.random() < 0.3:
        scores = _scaled(draw, scores, 100.0)
    if draw.rng.random() < 0.25:
        bent = node(draw, "Tanh", _scaled(draw, scores, 0.25))
        scores = node(draw, "Mul", bent, _number(draw, 4.0))
    return _masked(draw, scores)
