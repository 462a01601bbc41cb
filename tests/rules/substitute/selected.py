"""Rules of substitute.selected: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Mapping

from rules.instances import Draw, Hints


def a_mask(draw: Draw) -> object:
    """Of any length, constant or not."""
    mask = draw.rng.random(int(draw.rng.integers(1, 9))) < 0.5
    if draw.rng.random() < 0.5:
        return draw.constant(mask)
    return draw.input(mask.shape, mask.dtype)


def an_axis(draw: Draw) -> Mapping[str, object]:
    axis = draw.choose((None, 0, 1, -1))
    return {} if axis is None else {"axis": axis}


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "compress-to-gather": [
        (
            "(float[4,n] x) => (float[2,n] y)",
            "m = Constant<value=bool[4]{1,0,0,1}>() y = Compress<axis=0>(x, m)",
            "p = Constant<value_ints=[0,3]>() y = Gather<axis=0>(x, p)",
        ),
        (
            "(float[a,n] x, bool[n] m) => (float[a,k] y)",
            "y = Compress<axis=1>(x, m)",
            """z = NonZero(m) f = Constant<value_ints=[-1]>() p = Reshape(z, f)
            y = Gather<axis=1>(x, p)""",
        ),
        ("(float[a,n] x, bool[m] m) => (float[k] y)", "y = Compress(x, m)", ""),
        (
            "(int8[2,3] x) => (int8[3] y)",
            "m = Constant<value=bool[8]{1,0,1,0,0,1,1,1}>() y = Compress(x, m)",
            "",
        ),
    ],
    "unique-to-order": [
        ("(int64[a,b] x) => (int64[k] y)", "y = Unique(x)", ""),
        (
            "(int64[a,3] x) => (int64[k] y, int64[k] i, int64[n] j, int64[k] c)",
            "m = Constant<value_int=2>() r = Mod(x, m) y, i, j, c = Unique(r)",
            "",
        ),
    ],
    "nonzero-to-scatter": [
        ("(bool[a,b,c] x) => (int64[3,k] y)", "y = NonZero(x)", ""),
        ("(float[2,3] x) => (int64[2,k] y)", "y = NonZero(x)", ""),
        (
            "(int32[n] x) => (int64[1,k] y)",
            "m = Constant<value_int=2>() c = Cast<to=6>(m) r = Mod(x, c) y = NonZero(r)",
            "",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "compress-to-gather": [
        ("(x, bool[n] m) => (y)", "y = Compress<axis=-1>(x, m)", "the rank of x is unknown")
    ],
    "unique-to-order": [
        ("(float[n] x) => (float[k] y)", "y = Unique(x)", "which float are the same"),
        ("(int64[n] x) => (int64[k] y)", "y = Unique<sorted=0>(x)", "in order, alone"),
        ("(int64[n,2] x) => (int64[k,2] y)", "y = Unique<axis=0>(x)", "in order, alone"),
    ],
    "nonzero-to-scatter": [
        ("(float x) => (int64[r,k] y)", "y = NonZero(x)", "a scalar or a string"),
        ("(string[n] x) => (int64[1,k] y)", "y = NonZero(x)", "a scalar or a string"),
        ("(float x) => (int64[r,k] y)".replace("float x", "x"), "y = NonZero(x)", "unknown"),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "compress-to-gather": {"any": "T[a,b]", "mask": a_mask, "node": an_axis},
    "unique-to-order": {"any": "T[a,b]", "dtypes": ("int64", "int32"), "outputs": 4},
    "nonzero-to-scatter": {"any": "T[a,b]", "dtypes": ("bool", "int64", "float")},
}
