"""Rules of substitute.counted: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints


def flags(draw: Draw) -> Mapping[str, object]:
    return {name: int(draw.rng.integers(2)) for name in ("exclusive", "reverse")}


def an_axis(draw: Draw) -> list[ir.Value]:
    return [draw.constant(np.array(int(draw.rng.integers(-3, 3)), np.int64))]


def depth_and_values(draw: Draw) -> list[ir.Value]:
    depth = draw.constant(np.array(int(draw.rng.integers(1, 6)), np.int64))
    return [depth, draw.constant(np.array([0.5, 2.0], np.float32))]


def hot_axis(draw: Draw) -> Mapping[str, object]:
    return {"axis": int(draw.rng.integers(-3, 3))}


def diagonal(draw: Draw) -> Mapping[str, object]:
    return {"k": int(draw.rng.integers(-2, 3))}


def limits(draw: Draw) -> list[ir.Value]:
    limit, step = int(draw.rng.integers(-7, 8)), draw.choose([-3, -1, 1, 2])
    return [draw.constant(np.array(number, np.int64)) for number in (limit, step)]


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "cumsum-to-sums": [
        (
            "(int64[2,n] x) => (int64[2,n] y)",
            "a = Constant<value_int=1>() y = CumSum<exclusive=1, reverse=1>(x, a)",
            "",
        ),
        (
            "(float[2,3] x) => (float[2,3] y)",
            "a = Constant<value_int=0>() y = CumSum(x, a)",
            """p = Constant<value_ints=[0, 1]>() s0 = Constant<value_ints=[-1, 1, 1]>()
            s1 = Constant<value_ints=[1, -1, 1]>() i = Reshape(p, s0) j = Reshape(p, s1)
            l = Less(i, j) k = Not(l) a0 = Constant<value_ints=[0]>() u = Unsqueeze(x, a0)
            z = Constant<value_float=0.0>() w = Where(k, u, z) a1 = Constant<value_ints=[1]>()
            y = ReduceSum<keepdims=0>(w, a1)""",
        ),
    ],
    "one-hot-to-comparison": [
        (
            "(int64[2,n] i, float[2] v) => (float[2,b,n] y)",
            "d = Constant<value_int=3>() y = OneHot<axis=1>(i, d, v)",
            "",
        )
    ],
    "eye-like-to-comparison": [
        ("(float[3,n] x) => (int32[3,n] y)", "y = EyeLike<dtype=6, k=-1>(x)", "")
    ],
    "range-to-places": [
        (
            "(int64[n] x) => (int64[m] y)",
            """s = Constant<value_int=7>() d = Constant<value_int=-2>() z = Constant<value_int=0>()
            n = Shape(x) l = Gather(n, z) y = Range(s, l, d)""",
            "",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "cumsum-to-sums": [
        ("(float[2,n] x, int64 a) => (float[2,n] y)", "y = CumSum(x, a)", "at run time only")
    ],
    "one-hot-to-comparison": [
        (
            "(float[n] i, int64 d, float[2] v) => (float[n,b] y)",
            "y = OneHot(i, d, v)",
            "how indices of type float round",
        )
    ],
    "eye-like-to-comparison": [("(x) => (y)", "y = EyeLike(x)", "rank")],
    "range-to-places": [
        (
            "(float s, float l, float d) => (float[m] y)",
            "y = Range(s, l, d)",
            "rounded in another order",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "cumsum-to-sums": {
        "any": "T[a,b,d]",
        "CumSum+": an_axis,
        "node": flags,
        "dtypes": ("float32", "float64", "int32", "int64"),
    },
    "one-hot-to-comparison": {
        "any": "T[a,b]",
        "OneHot+": depth_and_values,
        "node": hot_axis,
        "dtypes": ("int32", "int64"),
    },
    "eye-like-to-comparison": {
        "any": "T[a,b]",
        "node": diagonal,
        "dtypes": ("float32", "float64", "int32", "int64"),
    },
    "range-to-places": {"any": "T[]", "Range+": limits, "dtypes": ("int64",)},
}
