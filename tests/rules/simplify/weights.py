"""Rules of simplify.weights: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rules.drawing import conv, conv_weights
from rules.instances import Draw, Hints


def positive(text: str) -> Callable[[Draw], np.ndarray]:
    def make(draw: Draw) -> np.ndarray:
        dtype, shape = draw.typed(text, None)
        return np.abs(draw.array(shape, dtype)) + np.asarray(0.5, dtype)

    return make


def weight(text: str) -> Callable[[Draw], np.ndarray]:
    def make(draw: Draw) -> np.ndarray:
        dtype, shape = draw.typed(text, None)
        return draw.array(shape, dtype)

    return make


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "batch-norm-of-conv": [
        (
            "(float[n,1,4,4] x) => (float[n,2,4,4] y)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() b = Constant<value_floats=[1.0,0.0]>()
               g = Constant<value_floats=[2.0,3.0]>() v = Constant<value_floats=[3.0,0.0]>()
               c = Conv(x, w, b) y = BatchNormalization<epsilon=1.0>(c, g, b, b, v)""",
            """w = Constant<value=float[2,1,1,1] {1,6}>() b = Constant<value_floats=[1.0,0.0]>()
               y = Conv(x, w, b)""",
        )
    ],
    "scale-of-conv": [
        (
            "(float[n,1,4,4] x) => (float[n,2,4,4] y)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() k = Constant<value=float[2,1,1] {2,4}>()
               c = Conv(x, w) y = Mul(k, c)""",
            "w = Constant<value=float[2,1,1,1] {2,8}>() y = Conv(x, w)",
        )
    ],
    "sum-of-conv": [
        (
            "(float[n,1,4,4] x) => (float[n,2,4,4] y)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() k = Constant<value=float[2,1,1] {2,4}>()
               c = Conv(x, w) y = Add(k, c)""",
            """w = Constant<value=float[2,1,1,1] {1,2}>() b = Constant<value_floats=[2.0,4.0]>()
               y = Conv(x, w, b)""",
        )
    ],
    "scale-of-matmul": [
        (
            "(float[n,2] x) => (float[n,2] y)",
            """w = Constant<value=float[2,2] {1,2,3,4}>() k = Constant<value_float=0.5>()
               m = MatMul(x, w) y = Mul(m, k)""",
            "w = Constant<value=float[2,2] {0.5,1,1.5,2}>() y = MatMul(x, w)",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "batch-norm-of-conv": [
        (
            "(float[n,1,4,4] x, float[2] v) => (float[n,2,4,4] y)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() g = Constant<value_floats=[1.0,0.0]>()
               c = Conv(x, w) y = BatchNormalization(c, g, g, g, v)""",
            "var is not a constant tensor",
        ),
        (
            "(float[n,1,4,4] x, float[2,1,1,1] w) => (float[n,2,4,4] y)",
            """g = Constant<value_floats=[1.0,0.0]>()
               c = Conv(x, w) y = BatchNormalization(c, g, g, g, g)""",
            "'w' is no constant",
        ),
    ],
    "scale-of-conv": [
        (
            "(float[n,1,4,2] x) => (float[n,2,4,2] y)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() k = Constant<value_floats=[2.0,3.0]>()
               c = Conv(x, w) y = Mul(k, c)""",
            "the factor is no number for each channel",
        ),
        (
            "(float[n,1,4,4] x) => (float[n,2,4,4] y, float[2,1,1,1] z)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() k = Constant<value_float=2.0>()
               c = Conv(x, w) y = Mul(k, c) z = Neg(w)""",
            "'w' is also used elsewhere",
        ),
        (
            "(float[n,1,4,4] x) => (float[n,2,4,4] y)",
            """w = Constant<value=float[2,1,1,1] {1,3e38}>() k = Constant<value_float=2.0>()
               c = Conv(x, w) y = Mul(k, c)""",
            "a number times its factor is too large for FLOAT",
        ),
    ],
    "sum-of-conv": [
        (
            "(float[n,1,4,4] x) => (float[n,1,4,4] y)",
            """w = Constant<value=float[1,1,1,1] {1}>() k = Constant<value_float=3e38>()
               b = Constant<value_floats=[3e38]>() c = Conv(x, w, b) y = Add(k, c)""",
            "a bias is not finite",
        ),
        (
            "(float[n,1,4,2] x) => (float[n,2,4,2] y)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() k = Constant<value_floats=[2.0,3.0]>()
               c = Conv(x, w) y = Add(k, c)""",
            "the summand is no number for each channel",
        ),
    ],
    "scale-of-matmul": [
        (
            "(float[n,2] x) => (float[n,2] y, float[2,2] z)",
            """w = Constant<value=float[2,2] {1,2,3,4}>() k = Constant<value_float=0.5>()
               m = MatMul(x, w) y = Mul(m, k) z = Neg(w)""",
            "'w' is also used elsewhere",
        ),
        (
            "(float[2,2] x) => (float[2,2] y)",
            """w = Constant<value=float[2,2] {1,2,3,4}>() k = Constant<value=float[2,1] {1,2}>()
               m = MatMul(x, w) y = Mul(m, k)""",
            "the factor is no number for each column",
        ),
        (
            "(float[2,2] x) => (float[2,2] y)",
            """w = Constant<value=float[2,2] {1,2,3,-3e38}>() k = Constant<value_float=1.5>()
               m = MatMul(x, w) y = Mul(m, k)""",
            "a number times its factor is too large for FLOAT",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "batch-norm-of-conv": {
        "x": "T[1,2,5,5]",
        "dtypes": ("float32",),
        "conv": conv,
        "gain": weight("T[3]"),
        "bias": weight("T[3]"),
        "mean": weight("T[3]"),
        "var": positive("T[3]"),
        "Conv+": conv_weights,
    },
    "scale-of-conv": {
        "x": "T[1,2,5,5]",
        "dtypes": ("float32",),
        "conv": conv,
        "Conv+": conv_weights,
        "k": ["T[3,1,1]", "T[1,3,1,1]", "T[]"],
    },
    "sum-of-conv": {
        "x": "T[1,2,5,5]",
        "w": "T[3,2,3,3]",
        "b": "T[3]",
        "dtypes": ("float32",),
        "conv": conv,
        "k": ["T[3,1,1]", "T[1,3,1,1]", "T[]", "T[1]"],
    },
    "scale-of-matmul": {
        "x": "T[a,b]",
        "w": weight("T[b,c]"),
        "k": ["T[c]", "T[1,c]", "T[]"],
        "dtypes": ("float32", "float64"),
    },
}
