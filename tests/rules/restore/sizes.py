"""Rules of restore.sizes: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import math

import numpy as np

from rules.drawing import half_array
from rules.instances import Draw, Hints
from rules.texts import X, brain, half, single

ATTENTION = "(float[n,8] x, float[8,9] z) => (float[n,9] y)"


def root(draw: Draw) -> np.ndarray:
    return half_array(8.0 ** float(draw.choose((0.5, -0.5, 0.25, -0.25))))  # type: ignore[arg-type]


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "restore-root-of-size": [
        (X, f"{brain('c', 8**0.5)} y = Mul(x, c)", f"{single('c', 8**0.5)} y = Mul(x, c)"),
        (X, f"{half('c', 8**0.25)} y = Div(x, c)", f"{single('c', 8**0.25)} y = Div(x, c)"),
        (
            ATTENTION,
            f"{brain('c', 8**-0.5)} m = MatMul(x, z) y = Mul(m, c)",
            f"{single('c', 8**-0.5)} m = MatMul(x, z) y = Mul(m, c)",
        ),
        (
            ATTENTION,
            f"{brain('c', 24**0.5)} m = MatMul(x, z) y = Div(m, c)",  # DeBERTa: three terms
            f"{single('c', 24**0.5)} m = MatMul(x, z) y = Div(m, c)",
        ),
        (
            "(float[24,n] x, float[9,24] z) => (float[n,9] y)",
            f"{brain('c', 24**0.5)} m = Div(x, c) y = Gemm<transA=1, transB=1>(m, z)",
            "",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "restore-root-of-size": [
        (X, f"{brain('c', 0.7)} y = Mul(x, c)", "is not sqrt(8), 1/sqrt(8), 8^(1/4), 8^(-1/4)"),
        (X, f"{brain('c', math.sqrt(7))} y = Div(x, c)", "2.640625 is not sqrt(8)"),
        (X, f"{brain('c', 0.125)} y = Mul(x, c)", "0.125 is a power of two"),
        (X, f"{single('c', 2.828125)} y = Mul(x, c)", "is FLOAT and was not rounded"),
        (
            "(float[n,9] x) => (float[n,9] y)",
            f"{brain('c', 3.0)} y = Mul(x, c)",
            "3.0 is sqrt(9) exactly",
        ),
        (
            "(float[8,n] x) => (float[8,n] y)",
            f"{brain('c', 8**0.5)} y = Mul(x, c)",
            "is not anything known here",
        ),
        (
            "(float[n,8] x, float[8,7] z) => (float[n,7] y)",
            f"{brain('c', 7**-0.5)} m = MatMul(x, z) y = Mul(m, c)",
            "is not sqrt(8)",
        ),
        (
            X,
            "c_ = Constant<value = float16[2] {15784, 15784}>() c = Cast<to=1>(c_) y = Mul(x, c)",
            "is a weight of the model",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "restore-root-of-size": {"x": "T[a,b,8]", "c": root, "dtypes": ("float32",)},
}
