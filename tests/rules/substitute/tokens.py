"""Rules of substitute.tokens: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np

from rules.instances import Draw, Hints

_HEAD = "(float[b,n,2] x, int64[b,n] ids, float[m,2] f) => (float[b,n,2] y)"
_INDEX = "one = Constant<value_int=1>() k = Equal(ids, one) z = NonZero(k)"
_COUNT = "q = Shape(t) zero = Constant<value_ints=[0]>() c = Gather(q, zero)"
_ROWS = (
    "rep = Constant<value_ints=[64, 1]>() g = Tile(f, rep) "
    "t = Transpose<perm=[1, 0]>(z) " + _COUNT + " r = Slice(g, zero, c, zero)"
)


def a_mask(draw: Draw) -> object:
    """A constant mask, so that there can be as many rows as places are set."""
    mask = draw.rng.random((draw.dim("a"), draw.dim("b"))) < 0.5
    draw.chosen["set"] = int(mask.sum())
    return draw.constant(np.asarray(mask))


def as_many_rows(draw: Draw) -> object:
    return draw.input((int(str(draw.chosen["set"])), draw.dim("d")), draw.dtype)


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "merging-to-where": [
        (_HEAD, f"{_INDEX} {_ROWS} y = ScatterND(x, t, r)", ""),
        (_HEAD, f"{_INDEX} {_ROWS} y = ScatterND(x, t, r)".replace("c, zero)", "c)"), ""),
        (
            "(float[b,n] x, float[b,n] m) => (float[b,n] y)",
            """one = Constant<value_float=1.0>() k = Greater(m, one) s = Shape(x)
            e = Expand(k, s) z = NonZero(e) t = Transpose<perm=[1, 0]>(z) v = Where(e, m, one)
            w = GatherND(m, t) y = ScatterND(x, t, w)""",
            "",
        ),
    ],
    "rows-of-nonzero-to-sum": [
        (
            "(float[2,n] x) => (int64[1] y)",
            "z = NonZero(x) t = Transpose<perm=[1, 0]>(z) y = Shape<start=0, end=1>(t)",
            "",
        ),
        (
            "(int64[2,n] x) => (int64[2] y)",
            "z = NonZero(x) t = Transpose<perm=[1, 0]>(z) y = Shape(t)",
            """b = Cast<to=9>(x) i = Cast<to=7>(b) f = Constant<value_ints=[-1]>()
            r = Reshape(i, f) a = Constant<value_ints=[0]>() s = ReduceSum<keepdims=1>(r, a)
            n = Constant<value_ints=[2]>() y = Concat<axis=0>(s, n)""",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "merging-to-where": [
        (
            "(float[b,n] x, float[b,m] k, float[c] r) => (float[b,n] y)",
            "z = NonZero(k) t = Transpose<perm=[1, 0]>(z) y = ScatterND(x, t, r)",
            "not known to have the sizes",
        ),
        (
            "(float[b,n] x, float[b,n] k, float[c] r) => (float[b,n] y)",
            'z = NonZero(k) t = Transpose<perm=[1, 0]>(z) y = ScatterND<reduction="add">(x, t, r)',
            "reduction",
        ),
    ],
    "rows-of-nonzero-to-sum": [
        (
            "(k) => (int64[2] y)",
            "z = NonZero(k) t = Transpose<perm=[1, 0]>(z) y = Shape(t)",
            "rank",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "merging-to-where": {"x": "T[a,b,d]", "mask": a_mask, "rows": as_many_rows},
    "rows-of-nonzero-to-sum": {"mask": "T[a,b]", "dtypes": ("float32", "int64")},
}
