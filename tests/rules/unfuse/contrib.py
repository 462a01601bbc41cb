"""Rules of unfuse.contrib: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from rules.drawing import ORT_TYPES, SKIP_HINTS, epsilon
from rules.instances import Hints
from rules.texts import SKIP, X8, XN

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-simplified-layer-normalization": [
        (X8, "y = SimplifiedLayerNormalization<epsilon=0.001>(x, s)", "")
    ],
    "unfuse-skip-layer-normalization": [
        (
            SKIP,
            "y, m, i, r = com.microsoft.SkipLayerNormalization<epsilon=0.001>(a, b, s, t)",
            "r = Add(a, b) y = LayerNormalization<epsilon=0.001>(r, s, t)",
        ),
        (
            SKIP,
            """y = com.microsoft.SkipLayerNormalization<epsilon=0.001>(a, b, s, t, s)
            r = Neg(y)""",
            "p = Add(a, b) q = Add(p, s) y = LayerNormalization<epsilon=0.001>(q, s, t) r = Neg(y)",
        ),
    ],
    "unfuse-skip-simplified-layer-normalization": [
        (
            SKIP,
            "y, m, i, r = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.001>(a, b, s)",
            "r = Add(a, b) y = SimplifiedLayerNormalization<epsilon=0.001>(r, s)",
        )
    ],
    "unfuse-contrib-gelu": [(XN, "y = com.microsoft.Gelu(x)", "y = Gelu(x)")],
    "unfuse-bias-gelu": [
        (
            "(float[2,n] x, float[n] b) => (float[2,n] y)",
            "y = com.microsoft.BiasGelu(x, b)",
            "a = Add(x, b) y = Gelu(a)",
        )
    ],
    "unfuse-fast-gelu": [(XN, "y = com.microsoft.FastGelu(x)", 'y = Gelu<approximate="tanh">(x)')],
    "unfuse-quick-gelu": [
        (XN, "y = com.microsoft.QuickGelu<alpha=1.0>(x)", "a = Sigmoid(x) y = Mul(x, a)")
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-simplified-layer-normalization": [
        ("(x, float[8] s) => (y)", "y = SimplifiedLayerNormalization(x, s)", "type")
    ],
    "unfuse-skip-layer-normalization": [
        (
            SKIP.replace("float[2,n,8] r", "float[2,n,1] r"),
            "y, r, i = com.microsoft.SkipLayerNormalization<epsilon=0.001>(a, b, s, t)",
            "'r' is used and has no replacement",
        )
    ],
    "unfuse-skip-simplified-layer-normalization": [
        (
            SKIP.replace("float[2,n,8] r", "float[2,n,1] r"),
            "y, r, i = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.001>(a, b, s)",
            "'r' is used and has no replacement",
        )
    ],
    "unfuse-contrib-gelu": [("(x) => (y)", "y = com.microsoft.Gelu(x)", "type of x is not known")],
    "unfuse-bias-gelu": [
        ("(x, b) => (y)", "y = com.microsoft.BiasGelu(x, b)", "type of x is not known")
    ],
    "unfuse-fast-gelu": [("(x) => (y)", "y = com.microsoft.FastGelu(x)", "type of x is not known")],
    "unfuse-quick-gelu": [
        ("(x) => (y)", "y = com.microsoft.QuickGelu(x)", "type of x is not known")
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-simplified-layer-normalization": {
        "x": "T[a,b,d]",
        "scale": "T[d]",
        "node": epsilon,
        "dtypes": ORT_TYPES,
    },
    "unfuse-skip-layer-normalization": {**SKIP_HINTS, "used": (0, 3)},
    "unfuse-skip-simplified-layer-normalization": {**SKIP_HINTS, "used": (0, 3)},
    "unfuse-contrib-gelu": {"dtypes": ("float32",), "opset": (17, 18, 20, 21)},
    "unfuse-bias-gelu": {
        "x": "T[a,b]",
        "bias": "T[b]",
        "dtypes": ("float32",),
        "opset": (17, 18, 20, 21),
    },
    "unfuse-fast-gelu": {
        "x": "T[a,b]",
        "bias": "T[b]",
        "dtypes": ORT_TYPES,
        "opset": (17, 18, 20, 21),
    },
    "unfuse-quick-gelu": {"alpha": [1.0, 1.702], "dtypes": ORT_TYPES},
}
