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


def repeated(draw: Draw, x: ir.Value, *, form: str) -> ir.Value:
    """Repeat each head in its place: [batch, heads, n, size] has heads times as many heads then."""
    batch, heads, times, _, keys = _sizes(draw)
    if times == 1:
        return x
    apart = node(draw, "Unsqueeze", x, _ints(draw, 2))
    if form == "Expand":
        wide = node(draw, "Expand", apart, _ints(draw, batch, heads, times, keys, DEPTH))
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
    x = repeated(draw, draw.input((batch, heads, keys, DEPTH), draw.dtype), form=form)
    if draw.rng.random() < 0.7:
        return node(draw, "Transpose", x, perm=[0, 1, 3, 2])
    flat = node(draw, "Reshape", x, _ints(draw, -1, keys, DEPTH))
    turned = node(draw, "Transpose", flat, perm=[0, 2, 1])
    return node(draw, "Reshape", turned, _ints(draw, batch, heads * times, DEPTH, keys))


def values(draw: Draw) -> ir.Value:
    """Values for `rows`, which must be drawn before or after with the same sizes."""
    batch, heads, _, _, keys = _sizes(draw)
    form = str(draw.chosen.setdefault("repeat", draw.choose(("Expand", "Tile", "Concat"))))
    return repeated(draw, draw.input((batch, heads, keys, DEPTH), draw.dtype), form=form)


def _scaled(draw: Draw, x: ir.Value, factor: float) -> ir.Value:
    if draw.rng.random() < 0.5:
        return node(draw, "Mul", x, _number(draw, factor))
    return node(draw, "Div", x, _number(draw, 1 / factor))


def _mask_shape(draw: Draw) -> Sequence[int]:
    batch, heads, times, queries, keys = _sizes(draw)
    shapes = [
        (batch, 1, queries, keys), (batch, heads * times, queries, keys), (1, 1, queries, keys),
        (queries, keys), (batch, 1, 1, keys), (heads * times, queries, keys), (keys,),
    ]  # fmt: skip
    return shapes[int(draw.rng.integers(len(shapes)))]


def _masked(draw: Draw, scores: ir.Value) -> ir.Value:
    """Scores with a mask of some form: added, chosen from numbers, or a Where around scores."""
    shape, lowest = _mask_shape(draw), float(np.finfo(draw.dtype).min)
    form = str(draw.choose(("none", "added", "numbers", "where", "turned", "constant")))
    if form == "added":
        return node(draw, "Add", scores, draw.input(shape, draw.dtype))
    if form == "constant":
        numbers = np.where(draw.rng.random(shape) < 0.7, 0, lowest).astype(draw.dtype)
        return node(draw, "Add", draw.constant(numbers), scores)
    if form == "none":
        return scores
    condition = draw.input(shape, np.dtype(np.bool_))
    low = _number(draw, lowest)
    if form == "numbers":
        ends = [_number(draw, 0.0), low]
        return node(draw, "Add", scores, node(draw, "Where", condition, *ends))
    if form == "where":
        return node(draw, "Where", condition, scores, low)
    return node(draw, "Where", condition, low, scores)


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
    if draw.rng.random() < 0.25:
        bent = node(draw, "Tanh", _scaled(draw, scores, 0.25))
        scores = node(draw, "Mul", bent, _number(draw, 4.0))
    return _masked(draw, scores)
