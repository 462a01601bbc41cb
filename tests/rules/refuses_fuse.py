"""Why each rule that fuses or unfuses leaves a look-alike alone."""

from __future__ import annotations

from rules.fires_fuse import MEAN_SQUARE, MOMENTS, NUMBERS, ONES, SKIP, TANH, X8, XB, XN

# The weights of a row cannot be told from a column's without sizes.
WRONG_AXIS = NUMBERS.replace("[-1]", "[1]")

REFUSES: dict[str, list[tuple[str, str, str]]] = {
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
    "axis-put-back": [
        (
            "(float[2,2] x) => (float[1,2] y)",
            NUMBERS
            + """k = Constant<value_ints=[0]>() v = ReduceMean<keepdims=0>(x, axes)
            y = Unsqueeze(v, k)""",
            "is not known to have the shape of",
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
            "(float[2,3,n,8] a, float[2,3,n,8] b, float[8] s) => (float[2,3,n,8] y)",
            "r = Add(a, b) y = SimplifiedLayerNormalization<epsilon=0.001>(r, s)",
            "not known to have one shape of 2 or 3 axes",
        )
    ],
    "gelu-erf": [
        (
            XN,
            NUMBERS.replace("1.4142135", "1.4")
            + "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, half) y = Mul(c, d)",
            "expected a constant 1.41421",
        ),
        (
            XN,
            NUMBERS
            + """k = Constant<value_float=0.7>() a = Mul(x, k) b = Erf(a) c = Add(b, one)
            d = Mul(x, half) y = Mul(c, d)""",
            "expected a constant 0.70710",
        ),
        (
            "(float[2,n] x) => (float[2,n] y, float[2,n] b)",
            NUMBERS + "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, half) y = Mul(c, d)",
            "'b' inside the match is an output of the graph",
        ),
        (
            "(double[2,n] x) => (double[2,n] y)",
            """h = Constant<value=double {0.5}>() o = Constant<value=double {1.0}>()
            r = Constant<value=double {1.4142135623730951}>() a = Div(x, r) b = Erf(a)
            c = Add(b, o) d = Mul(x, h) y = Mul(c, d)""",
            "the element type of x is DOUBLE",
        ),
    ],
    "gelu-tanh": [
        (
            XN,
            NUMBERS + TANH.replace("0.044715", "0.0447") + "v = Mul(x, u) y = Mul(half, v)",
            "expected a constant 0.044715, found 0.0447",
        )
    ],
    "swish": [
        ("(float[2,n] x, float[2,n] z) => (float[2,n] y)", "a = Sigmoid(z) y = Mul(x, a)", "x is")
    ],
    "sigmoid": [
        (
            XN,
            NUMBERS + "b = Exp(x) c = Add(b, one) y = Div(one, c)",
            "expected Neg, found input 'x'",
        )
    ],
    "softplus": [
        (XN, NUMBERS + "a = Exp(x) b = Add(a, two) y = Log(b)", "expected a constant 1.0, found 2")
    ],
    "mish": [(XN, "a = Softplus(x) b = Sigmoid(a) y = Mul(b, x)", "expected Tanh")],
    "hard-swish": [
        (
            XN,
            NUMBERS + "a = Add(x, three) b = Clip(a, zero, three) c = Mul(x, b) y = Div(c, six)",
            "expected a constant 6.0, found 3",
        )
    ],
    "softmax": [
        (
            XN,
            NUMBERS
            + """all = Constant<value_ints=[0,1]>() m = ReduceMax(x, all) a = Sub(x, m)
            b = Exp(a) c = ReduceSum(b, all) y = Div(b, c)""",
            "it is normalised over the axes (0, 1)",
        ),
        (
            XN,
            NUMBERS
            + """m = ReduceMax(x, axes) a = Sub(x, m) b = Exp(a) e = Exp(x)
            c = ReduceSum(e, axes) y = Div(b, c)""",
            "again, found Exp at",
        ),
        (
            "(float[2,n] x) => (float[2,n] y)",
            NUMBERS
            + """b = Exp(x) w = Cast<to=10>(b) c = ReduceSum(w, axes) d = Cast<to=1>(c)
            y = Div(b, d)""",
            "the sum of FLOAT is computed as FLOAT16",
        ),
    ],
    "log-softmax": [(XN, "a = Sigmoid(x) y = Log(a)", "expected Softmax, found Sigmoid")],
    "unfuse-layer-normalization": [
        (
            "(x, float[8] s) => (y)",
            "y = LayerNormalization<epsilon=0.001>(x, s)",
            "type",
        )
    ],
    "unfuse-rms-normalization": [("(x, float[8] s) => (y)", "y = RMSNormalization(x, s)", "type")],
    "unfuse-gelu": [("(x) => (y)", "y = Gelu(x)", "type")],
    "unfuse-swish": [("(x) => (y)", "y = Swish<alpha=2.0>(x)", "type")],
    "unfuse-mish": [(XN, "y = com.microsoft.Mish(x)", "")],
    "unfuse-hard-swish": [(XN, "y = com.microsoft.HardSwish(x)", "")],
    "simplified-to-rms-normalization": [
        (
            "(float16[2,n,8] x, float[8] s) => (float[2,n,8] y)",
            "y = SimplifiedLayerNormalization<epsilon=0.001>(x, s)",
            "'x' is FLOAT16 and 's' is FLOAT",
        )
    ],
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
