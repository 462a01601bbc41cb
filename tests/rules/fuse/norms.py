"""Rules of fuse.norms: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np

from rules.drawing import FLOAT, ORT_TYPES, SKIP_HINTS, epsilon, own_type
from rules.instances import Draw, Hints
from rules.texts import NUMBERS, SKIP, X8, XB

ONES = "o = Constant<value_floats=[1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0]>() "

MEAN_SQUARE = "q = Mul(x, x) v = ReduceMean(q, axes) w = Add(v, eps) d = Sqrt(w) "

MOMENTS = """m = ReduceMean(x, axes) c = Sub(x, m) q = Pow(c, two) v = ReduceMean(q, axes)
    w = Add(v, eps) d = Sqrt(w) z = Div(c, d) """

WRONG_AXIS = NUMBERS.replace("[-1]", "[1]")


def row_size(draw: Draw) -> float:
    return float(draw.dim("d"))


def row_share(draw: Draw) -> float:
    return 1.0 / draw.dim("d")


NORM_HINTS: Hints = {
    "x": "T[a,b,d]",
    "given": [FLOAT],
    "late": [FLOAT],
    "var_given": [FLOAT],
    "var_type": own_type,
    "narrow": own_type,
    "eps": [1e-5, 1e-6, 1e-3],
    "count": row_size,
    "share": row_share,
    "scale": "T[d]",
    "bias": "T[d]",
    "dtypes": ORT_TYPES,
}


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "simplified-to-rms-normalization": [
        (
            X8,
            "y = SimplifiedLayerNormalization<epsilon=0.001>(x, s)",
            "y = RMSNormalization<epsilon=0.001>(x, s)",
        )
    ],
    "rms-normalization": [
        (
            X8,
            NUMBERS + MEAN_SQUARE + "z = Div(x, d) y = Mul(s, z)",
            "y = RMSNormalization<epsilon=0.000001, stash_type=1>(x, s)",
        ),
        (
            "(float[2,n,8] x) => (float[2,n,8] y)",
            NUMBERS + MEAN_SQUARE + "r = Reciprocal(d) y = Mul(r, x)",
            """s = Constant<value_floats=[1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0]>()
            y = RMSNormalization<epsilon=0.000001, stash_type=1>(x, s)""",
        ),
    ],
    "layer-normalization": [
        (
            XB,
            NUMBERS + MOMENTS + "g = Mul(z, s) y = Add(t, g)",
            "y = LayerNormalization<epsilon=0.000001, stash_type=1>(x, s, t)",
        ),
        (
            X8,
            NUMBERS + MOMENTS + "y = Mul(s, z)",
            "y = LayerNormalization<epsilon=0.000001, stash_type=1>(x, s)",
        ),
        # an eps that float16 rounds to 0
        (
            X8,
            NUMBERS
            + MOMENTS.replace("w = Add(v, eps) d = Sqrt(w)", "d = Sqrt(v)")
            + "y = Mul(s, z)",
            "y = LayerNormalization<epsilon=0.0, stash_type=1>(x, s)",
        ),
        # torch.onnx at opset 14: centred in half precision, the rest in float64
        (
            "(float16[2,n,8] x, float16[8] s) => (float16[2,n,8] y)",
            """axes = Constant<value_ints=[-1]>() two = Constant<value=double {2.0}>()
            eps = Constant<value=double {0.001}>()
            m = ReduceMean(x, axes) b = Sub(x, m) c = Cast<to=11>(b) q = Pow(c, two)
            v = ReduceMean(q, axes) w = Add(v, eps) d = Sqrt(w) z = Div(c, d) n = Cast<to=10>(z)
            y = Mul(n, s)""",
            "y = LayerNormalization<epsilon=0.001, stash_type=1>(x, s)",
        ),
        # torch.var, which has a mean of its own
        (
            X8,
            NUMBERS
            + """m = ReduceMean(x, axes) c = Sub(x, m) k = Constant<value_ints=[2]>()
            m2 = ReduceMean(x, k) c2 = Sub(x, m2) q = Mul(c2, c2) v = ReduceMean(q, k)
            w = Add(v, eps) d = Sqrt(w) z = Div(c, d) y = Mul(s, z)""",
            "y = LayerNormalization<epsilon=0.000001, stash_type=1>(x, s)",
        ),
    ],
    "scale-of-normalization": [
        (
            X8,
            ONES + "a = LayerNormalization<epsilon=0.001>(x, o) y = Mul(s, a)",
            "y = LayerNormalization<epsilon=0.001>(x, s)",
        ),
        (
            XB.replace("[2,n,8] y", "[2,n,8] y, float[2,n,8] z"),
            ONES + "a = RMSNormalization<epsilon=0.001>(x, o) y = Mul(a, s) z = Mul(a, t)",
            """z = RMSNormalization<epsilon=0.001>(x, t)
            y = RMSNormalization<epsilon=0.001>(x, s)""",
        ),
    ],
    "centred-rms-normalization": [
        (
            X8,
            NUMBERS
            + "m = ReduceMean(x, axes) c = Sub(x, m) y = RMSNormalization<epsilon=0.001>(c, s)",
            "y = LayerNormalization<epsilon=0.001, stash_type=1>(x, s)",
        )
    ],
    "bias-of-layer-normalization": [
        (
            XB,
            "a = LayerNormalization<epsilon=0.001>(x, s) y = Add(t, a)",
            "y = LayerNormalization<epsilon=0.001>(x, s, t)",
        )
    ],
    "narrow-rms-normalization": [
        (
            "(float16[2,n,8] x, float16[8] s) => (float16[2,n,8] y)",
            """a = Cast<to=1>(x) b = Cast<to=1>(s) c = RMSNormalization<epsilon=0.001>(a, b)
            y = Cast<to=10>(c)""",
            "y = RMSNormalization<epsilon=0.001, stash_type=1>(x, s)",
        )
    ],
    "skip-layer-normalization": [
        (
            SKIP,
            "r = Add(a, b) y = LayerNormalization<epsilon=0.001, stash_type=1>(r, s, t)",
            "y, m, i, r = com.microsoft.SkipLayerNormalization<epsilon=0.001>(a, b, s, t)",
        )
    ],
    "skip-simplified-layer-normalization": [
        (
            SKIP,
            "r = Add(a, b) y = SimplifiedLayerNormalization<epsilon=0.001>(r, s)",
            "y, m, i, r = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.001>(a, b, s)",
        ),
        (
            SKIP,
            "r = Add(a, b) y = RMSNormalization<epsilon=0.001>(r, s)",
            "y, m, i, r = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.001>(a, b, s)",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "simplified-to-rms-normalization": [
        (
            "(float16[2,n,8] x, float[8] s) => (float[2,n,8] y)",
            "y = SimplifiedLayerNormalization<epsilon=0.001>(x, s)",
            "'x' is FLOAT16 and 's' is FLOAT",
        )
    ],
    "rms-normalization": [
        (X8, WRONG_AXIS + MEAN_SQUARE + "z = Div(x, d) y = Mul(s, z)", "expected axes=-1"),
        (
            "(float[2,n,8] x, float[8] s) => (float[2,n,8] y, float[2,n,1] v)",
            NUMBERS + MEAN_SQUARE + "z = Div(x, d) y = Mul(s, z)",
            "'v' inside the match is an output of the graph",
        ),
        (
            "(float[2,n,m] x, float[1] s) => (float[2,n,m] y)",
            NUMBERS + MEAN_SQUARE + "z = Div(x, d) y = Mul(s, z)",
            "'s' is not known to have one number for each element of a row",
        ),
        (
            "(float[2,n,8] x, float[2,n,8] o, float[8] s) => (float[2,n,8] y)",
            NUMBERS + MEAN_SQUARE + "z = Div(o, d) y = Mul(s, z)",
            "'x'",
        ),
        (
            X8,
            NUMBERS
            + """q = ReduceSumSquare(x, axes) k = Constant<value_float=7.0>() v = Div(q, k)
            w = Add(v, eps) d = Sqrt(w) z = Div(x, d) y = Mul(s, z)""",
            "a sum over 8 elements is scaled by 7.0",
        ),
        (
            "(float16[2,n,8] x, float[8] s) => (float[2,n,8] y)",
            NUMBERS.replace("axes =", "unused =")
            + """axes = Constant<value_ints=[-1]>() c = Cast<to=11>(x) q = Mul(c, c)
            v = ReduceMean(q, axes) e = Cast<to=11>(eps) w = Add(v, e) d = Sqrt(w) z = Div(c, d)
            t = Cast<to=1>(z) y = Mul(s, t)""",
            "eps is not a constant float",
        ),
    ],
    "layer-normalization": [
        (
            XB,
            WRONG_AXIS + MOMENTS + "g = Mul(z, s) y = Add(t, g)",
            "expected axes=-1",
        ),
        (
            "(float[2,n,8] x, float[8] s, float[8] t) => (float[2,n,8] y, float[2,n,1] m)",
            NUMBERS + MOMENTS + "g = Mul(z, s) y = Add(t, g)",
            "'m' inside the match is an output of the graph",
        ),
        (
            XB,
            NUMBERS
            + MOMENTS.replace("Pow(c, two)", "Pow(c, three)")
            + "g = Mul(z, s) y = Add(t, g)",
            "expected a constant 2.0, found 3",
        ),
    ],
    "scale-of-normalization": [
        (
            XB,
            "a = LayerNormalization<epsilon=0.001>(x, t) y = Mul(s, a)",
            "ones is not a constant tensor: found input 't'",
        ),
        (
            X8,
            ONES.replace("1.0]", "1.1]")
            + "a = LayerNormalization<epsilon=0.001>(x, o) y = Mul(s, a)",
            "it is scaled already",
        ),
        (
            XB.replace("[2,n,8] y", "[2,n,8] y, float[2,n,8] z"),
            ONES + "a = LayerNormalization<epsilon=0.001>(x, o) y = Mul(s, a) z = Neg(a)",
            "'a' is also used by 'z' (Neg)",
        ),
        (
            XB.replace("float[8] t", "float[2,n,8] t"),
            ONES + "a = LayerNormalization<epsilon=0.001>(x, o) y = Mul(t, a)",
            "'t' is not known to have one number for each element of a row",
        ),
    ],
    "centred-rms-normalization": [
        (
            X8,
            WRONG_AXIS
            + "m = ReduceMean(x, axes) c = Sub(x, m) y = RMSNormalization<epsilon=0.001>(c, s)",
            "expected axes=-1",
        )
    ],
    "bias-of-layer-normalization": [
        (
            "(float[2,n,8] x, float[8] s, float[2,n,8] t) => (float[2,n,8] y)",
            "a = LayerNormalization<epsilon=0.001>(x, s) y = Add(t, a)",
            "'t' is not known to have one number for each element of a row",
        )
    ],
    "narrow-rms-normalization": [
        (
            "(float16[2,n,8] x, bfloat16[8] s) => (float16[2,n,8] y)",
            """a = Cast<to=1>(x) b = Cast<to=1>(s) c = RMSNormalization<epsilon=0.001>(a, b)
            y = Cast<to=10>(c)""",
            "FLOAT16 and BFLOAT16 come out as FLOAT16",
        )
    ],
    "skip-layer-normalization": [
        (
            "(float[2,n,8] a, float[8] b, float[8] s, float[8] t) => (float[2,n,8] y)",
            "r = Add(a, b) y = LayerNormalization<epsilon=0.001, stash_type=1>(r, s, t)",
            "not known to have one shape of 2 or 3 axes",
        ),
        (
            SKIP,
            "r = Add(a, b) y = LayerNormalization<axis=1, epsilon=0.001>(r, s, t)",
            "expected axis=-1, found 1",
        ),
    ],
    "skip-simplified-layer-normalization": [
        (
            "(float16[2,8] a, float16[2,8] b, float[8] s) => (float16[2,8] r, float[2,8] y)",
            "r = Add(a, b) y = SimplifiedLayerNormalization<epsilon=0.001>(r, s)",
            "'s' is FLOAT and 'a' is FLOAT16",
        ),
        (
            "(float[2,3,n,8] a, float[2,3,n,8] b, float[8] s) => (float[2,3,n,8] y)",
            "r = Add(a, b) y = SimplifiedLayerNormalization<epsilon=0.001>(r, s)",
            "not known to have one shape of 2 or 3 axes",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "simplified-to-rms-normalization": {
        "x": "T[a,b,d]",
        "scale": "T[d]",
        "node": epsilon,
        "dtypes": ORT_TYPES,
    },
    "rms-normalization": NORM_HINTS,
    "layer-normalization": NORM_HINTS,
    "centred-rms-normalization": {**NORM_HINTS, "stash": [FLOAT], "opset": (23,)},
    "scale-of-normalization": {
        "x": "T[a,b,d]",
        "ones": lambda draw: np.ones(draw.dim("d"), draw.dtype),
        "scale": "T[d]",
        "norm": epsilon,
        "opset": (23,),
        "dtypes": ORT_TYPES,
    },
    "bias-of-layer-normalization": {**NORM_HINTS, "norm": epsilon, "opset": (17, 18, 21)},
    "narrow-rms-normalization": {
        "x": "T[a,d]",
        "scale": "T[d]",
        "wide": [FLOAT],
        "narrow": own_type,
        "norm": epsilon,
        "dtypes": ("float16",),
        "opset": (23,),
    },
    "skip-layer-normalization": SKIP_HINTS,
    "skip-simplified-layer-normalization": SKIP_HINTS,
}
