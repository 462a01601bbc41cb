"""Rules of substitute.ranks: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from math import prod

import numpy as np

from rules.instances import Draw, Hints

_APART = "a = Constant<value_ints=[{}]>() b = Reshape(x, a) t = Transpose<perm=[{}]>(b) "
_BACK = "s = Constant<value_ints=[{}]>() y = Reshape(t, s)"
_WINDOWS = _APART.format("1,2,4,2,4,3", "0,1,3,2,4,5")


def whole(draw: Draw) -> object:
    """What is taken apart into six to nine axes, some of size 1."""
    sizes = [int(draw.rng.choice([1, 2, 2, 3])) for _ in range(int(draw.rng.integers(6, 10)))]
    draw.chosen["apart"] = sizes
    return draw.input([prod(sizes)], draw.dtype)


def sizes_apart(draw: Draw) -> np.ndarray:
    return np.array(draw.chosen["apart"], np.int64)


def turned(draw: Draw) -> object:
    return [int(each) for each in draw.rng.permutation(len(draw.chosen["apart"]))]  # type: ignore[arg-type]


def back(draw: Draw) -> object:
    return draw.constant(np.array([-1], np.int64))


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "windows-at-lower-rank": [
        (
            "(float[1,8,8,3] x) => (float[4,4,4,3] y)",
            _WINDOWS + _BACK.format("4,4,4,3"),
            """a = Constant<value_ints=[2,4,2,12]>() b = Reshape(x, a)
            t = Transpose<perm=[0,2,1,3]>(b) """
            + _BACK.format("4,4,4,3"),
        ),
        (
            "(float[b,8,8,3] x) => (float[m,4,4,3] y)",
            _APART.format("-1,2,4,2,4,3", "0,1,3,2,4,5") + _BACK.format("-1,4,4,3"),
            "",
        ),
        (
            "(int8[2,4,6,4] x) => (int8[2,96] y)",
            _APART.format("2,2,2,3,2,2,2", "0,1,3,5,2,4,6") + _BACK.format("2,96"),
            "",
        ),
    ]
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "windows-at-lower-rank": [
        (
            "(float[2,8,3] x) => (float[4,4,3] y)",
            _APART.format("2,2,4,1,3", "0,1,3,2,4") + _BACK.format("4,4,3"),
            "not known to have more than 5 axes",
        ),
        (
            "(float[1,8,8,3] x, int64[4] s) => (float[4,4,4,3] y)",
            _WINDOWS + "y = Reshape(t, s)",
            "'s' is no constant that gives every size",
        ),
        (
            "(float[1,8,8,3] x) => (float[1,2,48,1,2] y)",
            _WINDOWS + _BACK.format("0,0,48,1,-1"),
            "is no constant that gives every size",
        ),
    ]
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "windows-at-lower-rank": {"x": whole, "any": sizes_apart, "perm": turned, "sizes": back}
}
