"""Rules of restore.activation_numbers: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import math

import numpy as np

from rules.drawing import half_array
from rules.instances import Draw, Hints
from rules.texts import X, brain, half, single

ONE, HALF, THREE = single("one", 1), single("half", 0.5), single("three", 3)

SLOPE = math.sqrt(2 / math.pi)

ERF = "s = Div(x, c) y = Erf(s)"

TANH_PARTS = "p = Pow(x, three) w = Mul(c, p) b = Add(x, w) s = Mul(b, d) y = Tanh(s)"

PRODUCT = "q = Mul(x, x) w = Mul(q, c) b = Add(w, one) s = Mul(x, d) t = Mul(s, b) y = Tanh(t)"

BUILT = """w = Mul(x, c) q = Mul(x, w) b = Add(q, one) s = Mul(x, d) t = Mul(s, b) y = Tanh(t)"""

QUICK = "s = Mul(x, c) g = Sigmoid(s) y = Mul(x, g)"


def gelu(held, bend: float, slope: float) -> str:
    return f"{held('c', bend)} {held('d', slope)} {THREE}"


def bent(draw: Draw) -> np.ndarray:
    return half_array(0.044715)


def sloped(draw: Draw) -> np.ndarray:
    return half_array(math.sqrt(2 / math.pi))


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "restore-erf-scale": [
        (X, f"{brain('c', math.sqrt(2))} {ERF}", f"{single('c', math.sqrt(2))} {ERF}"),
        (X, f"{half('c', math.sqrt(2))} {ERF}", f"{single('c', math.sqrt(2))} {ERF}"),
        (
            X,
            f"{brain('c', math.sqrt(0.5))} s = Mul(c, x) y = Erf(s)",
            f"{single('c', math.sqrt(0.5))} s = Mul(x, c) y = Erf(s)",
        ),
    ],
    "restore-gelu-tanh": [
        (
            X,
            f"{gelu(brain, 0.044715, SLOPE)} {TANH_PARTS}",
            f"""{gelu(single, 0.044715, SLOPE)} p = Pow(x, three) w = Mul(p, c)
                b = Add(x, w) s = Mul(b, d) y = Tanh(s)""",
        )
    ],
    "restore-gelu-tanh-of-product": [
        (
            X,
            f"{gelu(brain, 0.044715, SLOPE)} {ONE} {PRODUCT}",
            f"{gelu(single, 0.044715, SLOPE)} {ONE} {BUILT}",
        ),
        (
            X,
            f"""{gelu(half, 0.044715, SLOPE)} {ONE} w = Mul(c, x) q = Mul(w, x) b = Add(one, q)
                s = Mul(b, d) t = Mul(x, s) y = Tanh(t)""",
            f"{gelu(single, 0.044715, SLOPE)} {ONE} {BUILT}",
        ),
    ],
    "restore-quick-gelu": [
        (X, f"{brain('c', 1.702)} {QUICK}", f"{single('c', 1.702)} {QUICK}"),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "restore-erf-scale": [
        (X, f"{brain('c', 1.4)} {ERF}", "1.3984375 is not sqrt(2) rounded to BFLOAT16"),
        (X, f"{single('c', 1.4140625)} {ERF}", "is FLOAT and was not rounded"),
        (X, f"{brain('c', math.sqrt(2))} s = Mul(x, c) y = Erf(s)", "is not sqrt(1/2) rounded"),
        (
            "(float[n,8] x) => (float[n,8] y, float[n,8] s)",
            f"{brain('c', math.sqrt(2))} {ERF}",
            "'s' inside the match is an output of the graph",
        ),
    ],
    "restore-gelu-tanh": [
        (X, f"{gelu(brain, 0.045, SLOPE)} {TANH_PARTS}", "is not 0.044715 rounded to BFLOAT16"),
        (X, f"{gelu(brain, 0.044715, 0.8)} {TANH_PARTS}", "is not sqrt(2/pi) rounded to BFLOAT16"),
    ],
    "restore-gelu-tanh-of-product": [
        (X, f"{gelu(half, 0.045, SLOPE)} {ONE} {PRODUCT}", "is not 0.044715 rounded to FLOAT16"),
        (X, f"{gelu(half, 0.044715, 0.8)} {ONE} {PRODUCT}", "is not sqrt(2/pi) rounded"),
    ],
    "restore-quick-gelu": [
        (X, f"{brain('c', 1.72)} {QUICK}", "1.71875 is not 1.702 rounded to BFLOAT16"),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "restore-erf-scale": {
        "c": lambda draw: half_array(math.sqrt(draw.choose((2, 0.5)))),  # type: ignore[arg-type]
        "dtypes": ("float32",),
    },
    "restore-gelu-tanh": {"c": bent, "slope": sloped, "dtypes": ("float32",)},
    "restore-gelu-tanh-of-product": {"c": bent, "slope": sloped, "dtypes": ("float32",)},
    "restore-quick-gelu": {"c": lambda draw: half_array(1.702), "dtypes": ("float32",)},
}
