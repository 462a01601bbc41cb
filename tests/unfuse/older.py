"""Random configurations of operators that ONNX Runtime had before the standard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unfuse.cases import Case, Given
from unfuse.heads import OPSETS, Dice, chance, normal, pick

FLOAT, LONG = np.dtype(np.float32), np.dtype(np.int64)


def _opset(rng: Dice) -> int:
    return int(pick(rng, *OPSETS))  # type: ignore[call-overload]


def _case(
    rng: Dice,
    operator: str,
    inputs: dict[str, Given | None],
    rank: int,
    **attributes: object,
) -> Case:
    outputs = [("y", rank, FLOAT)]
    return Case(operator, inputs, attributes, outputs, _opset(rng), dynamic=chance(rng))


def trilu(rng: Dice) -> Case:
    """Draw a Trilu."""
    x = Given(normal(rng, (2, int(rng.integers(1, 5)), 3), FLOAT), ["b", "n", "m"])
    k = Given(np.array(int(rng.integers(-2, 3)), np.int64)) if chance(rng) else None
    attributes = {"upper": int(chance(rng))} if chance(rng) else {}
    return _case(rng, "Trilu", {"x": x, "k": k}, 3, **attributes)


def unique(rng: Dice) -> Case:
    """Draw a Unique."""
    x = rng.integers(0, 4, int(rng.integers(1, 9))).astype(np.float32)
    outputs = [("y", 1, FLOAT), ("index", 1, LONG), ("counts", 1, LONG)]
    return Case("Unique", {"x": Given(x, ["n"])}, {}, outputs, _opset(rng), dynamic=chance(rng))


def expand_dims(rng: Dice) -> Case:
    """Draw an ExpandDims."""
    x = Given(normal(rng, (2, 3), FLOAT), ["b", "n"])
    axis = Given(np.array(int(rng.integers(-3, 3)), np.int32), constant=chance(rng))
    return _case(rng, "ExpandDims", {"x": x, "a": axis}, 3)


def gather_nd(rng: Dice) -> Case:
    """Draw a GatherND."""
    x = Given(normal(rng, (2, 3, 4), FLOAT), ["b", "n", "m"])
    count = int(rng.integers(1, 4))
    index = rng.integers(0, 2, (int(rng.integers(1, 4)), count))
    index = index.astype(str(pick(rng, "int32", "int64")))
    return _case(rng, "GatherND", {"x": x, "i": Given(index)}, 1 + 3 - count)


def pad(rng: Dice) -> Case:
    """Draw a Pad."""
    x = Given(normal(rng, (2, 3), FLOAT), ["b", "n"])
    pads = rng.integers(0, 3, 4).astype(np.int64)
    pads = pads[None] if chance(rng) else pads
    value = Given(np.array([0.5], np.float32)) if chance(rng) else None
    mode = str(pick(rng, "constant", "edge"))
    value = value if mode == "constant" else None
    return _case(rng, "Pad", {"x": x, "p": Given(pads), "v": value}, 2, mode=mode)


def counted(rng: Dice) -> Case:
    """Draw a Range."""
    start, count, step = int(rng.integers(-3, 3)), int(rng.integers(1, 5)), int(rng.integers(1, 3))
    given = [start, start + count * step, step]
    inputs: dict[str, Given | None] = {
        name: Given(np.array([x] if chance(rng) else x, np.float32))
        for name, x in zip("abs", given, strict=True)
    }
    if step == 1 and chance(rng):
        inputs["s"] = None
    return _case(rng, "Range", inputs, 1)


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "Trilu": trilu,
    "Unique": unique,
    "ExpandDims": expand_dims,
    "GatherND": gather_nd,
    "Pad": pad,
    "Range": counted,
}
