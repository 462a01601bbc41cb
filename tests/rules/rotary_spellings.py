"""Rotary embeddings as exporters spell them, at random: angles, parts of a head, layouts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rules.attention_spellings import node
from rules.instances import Draw

__all__ = [
    "doubled_angles",
    "first_half",
    "half_angles",
    "part_angles",
    "part_attributes",
    "part_of_row",
    "rest_of_row",
    "second_half",
    "turned_input",
]

SIZE = 8
"""Of a head; a kernel turns pairs of it."""


def _length(draw: Draw) -> int:
    """Return the length of the sequence, which is empty now and then."""
    if "s" not in draw.sizes and draw.rng.random() < 0.2:
        draw.sizes["s"] = 0
    return draw.dim("s")


def _by_token(draw: Draw) -> bool:
    """Whether heads come behind tokens."""
    if draw.rule.name == "rotary-of-a-part-of-tokens":
        return True
    may = draw.rule.name != "rotary-of-a-part"
    return bool(draw.chosen.setdefault("by token", may and draw.rng.random() < 0.3))


def _shape(draw: Draw, size: int) -> tuple[int, ...]:
    axes = draw.dim("h"), _length(draw)
    return (draw.dim("b"), *(reversed(axes) if _by_token(draw) else axes), size)


def turned_input(draw: Draw) -> ir.Value:
    """What is turned, heads and tokens in either order; the front of a longer row now and then."""
    if "turned" not in draw.made:
        more = 4 if "a-part" not in draw.rule.name and draw.rng.random() < 0.3 else 0
        x = draw.input(_shape(draw, SIZE + more), draw.dtype)
        bounds = [draw.constant(np.array([each])) for each in (more, SIZE + more, -1)]
        draw.made["turned"] = node(draw, "Slice", x, *bounds) if more else x
    value = draw.made["turned"]
    assert isinstance(value, ir.Value)
    return value


def _part(draw: Draw, start: int, stop: int, step: int = 1) -> ir.Value:
    x = turned_input(draw)
    bounds = [draw.constant(np.array([each])) for each in (start, stop, -1, step)]
    return node(draw, "Slice", x, *bounds)


def first_half(draw: Draw) -> ir.Value:
    """The first half of each row, by Slice or Split."""
    if draw.chosen.setdefault("by", draw.choose(("Slice", "Split"))) == "Slice":
        return _part(draw, 0, SIZE // 2)
    return _split(draw)[0]


def second_half(draw: Draw) -> ir.Value:
    """The second half of each row."""
    if draw.chosen.setdefault("by", draw.choose(("Slice", "Split"))) == "Slice":
        return _part(draw, SIZE // 2, 2**63 - 1)
    return _split(draw)[1]


def even(draw: Draw) -> ir.Value:
    """Every other element of each row, from the first."""
    return _part(draw, 0, 2**63 - 1, 2)


def odd(draw: Draw) -> ir.Value:
    """Every other element of each row, from the second."""
    return _part(draw, 1, 2**63 - 1, 2)


def _split(draw: Draw) -> list[ir.Value]:
    if "split" not in draw.made:
        sizes = draw.constant(np.array([SIZE // 2, SIZE // 2]))
        axis = ir.AttrInt64("axis", int(draw.choose((-1, 3))))  # type: ignore[call-overload]
        split = ir.Node("", "Split", [turned_input(draw), sizes], [axis], num_outputs=2)
        draw.place(split)
        draw.made["split"] = split
    made = draw.made["split"]
    assert isinstance(made, ir.Node)
    return list(made.outputs)


def _frequencies(draw: Draw) -> ir.Value:
    """Angles of each pair, [batch or 1, length, pairs]."""
    batch = draw.dim("b") if draw.rng.random() < 0.5 else 1
    return draw.input((batch, _length(draw), SIZE // 2), draw.dtype)


def _bent(draw: Draw, angles: ir.Value) -> ir.Value:
    bent = node(draw, str(draw.choose(("Cos", "Sin"))), angles)
    if draw.rng.random() < 0.3:
        bent = node(draw, "Mul", bent, draw.constant(np.asarray(1.25, draw.dtype)))
    return node(draw, "Unsqueeze", bent, draw.constant(np.array([2 if _by_token(draw) else 1])))


def doubled_angles(draw: Draw) -> ir.Value:
    """Cosines or sines of each element, both halves alike, of inputs or of a table."""
    if draw.rng.random() < 0.3:
        table = draw.array((9, SIZE // 2), draw.dtype)
        rows = draw.input((_length(draw),), np.dtype(np.int64))
        return node(draw, "Gather", draw.constant(np.concatenate([table, table], -1)), rows)
    angles = _frequencies(draw)
    return _bent(draw, node(draw, "Concat", angles, angles, axis=-1))


def paired_angles(draw: Draw) -> ir.Value:
    """Cosines or sines of each element, neighbours alike."""
    angles = _frequencies(draw)
    apart = node(draw, "Unsqueeze", angles, draw.constant(np.array([-1])))
    if draw.rng.random() < 0.5:
        wide = node(draw, "Concat", apart, apart, axis=-1)
    else:
        wide = node(draw, "Tile", apart, draw.constant(np.array([1, 1, 1, 2])))
    flat = draw.constant(np.array([*angles.shape.numpy()[:2], SIZE]))  # type: ignore[union-attr]
    return _bent(draw, node(draw, "Reshape", wide, flat))


def half_angles(draw: Draw) -> ir.Value:
    """Cosines or sines of each pair."""
    return _bent(draw, _frequencies(draw))


def _form(draw: Draw) -> str:
    """How a part is turned: of 4 axes, of 4 a part of the part, or of 3 with heads in a row."""
    forms = ("whole", "whole", "part", "flat")[: 3 if _by_token(draw) else 4]
    return str(draw.chosen.setdefault("form", draw.choose(forms)))


def _of_row(draw: Draw, start: int, stop: int) -> ir.Value:
    if _form(draw) != "flat":
        return _part(draw, start, stop)
    if "turned" not in draw.made:
        shape = draw.dim("b"), _length(draw), 2 * SIZE
        draw.made["turned"] = draw.input(shape, draw.dtype)
    return _part(draw, 2 * start, 2 * stop)


def part_of_row(draw: Draw) -> ir.Value:
    """The front part of each row, which a RotaryEmbedding turns."""
    return _of_row(draw, 0, SIZE // 2)


def rest_of_row(draw: Draw) -> ir.Value:
    """What is left of each row."""
    return _of_row(draw, SIZE // 2, SIZE)


def part_angles(draw: Draw) -> ir.Value:
    """Cosines or sines of each pair of what is turned."""
    pairs = 1 if _form(draw) == "part" else 2
    return draw.input((draw.dim("b"), _length(draw), pairs), draw.dtype)


def part_attributes(draw: Draw) -> dict[str, object]:
    """Of the RotaryEmbedding that turns a part."""
    if _form(draw) == "whole":
        return {}
    return {"num_heads": 2} if _form(draw) == "flat" else {"rotary_embedding_dim": 2}
