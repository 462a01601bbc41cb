"""What each rule that fuses or unfuses does to a graph."""

from __future__ import annotations

XN, X8 = "(float[2,n] x) => (float[2,n] y)", "(float[2,n,8] x, float[8] s) => (float[2,n,8] y)"
XB = "(float[2,n,8] x, float[8] s, float[8] t) => (float[2,n,8] y)"
SKIP = """(float[2,n,8] a, float[2,n,8] b, float[8] s, float[8] t)
    => (float[2,n,8] y, float[2,n,8] r)"""
NUMBERS = """zero = Constant<value_float=0.0>() half = Constant<value_float=0.5>()
    one = Constant<value_float=1.0>() two = Constant<value_float=2.0>()
    three = Constant<value_float=3.0>() six = Constant<value_float=6.0>()
    root2 = Constant<value_float=1.4142135>() eps = Constant<value_float=0.000001>()
    axes = Constant<value_ints=[-1]>() """
ONES = "o = Constant<value_floats=[1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0]>() "
MEAN_SQUARE = "q = Mul(x, x) v = ReduceMean(q, axes) w = Add(v, eps) d = Sqrt(w) "
MOMENTS = """m = ReduceMean(x, axes) c = Sub(x, m) q = Pow(c, two) v = ReduceMean(q, axes)
    w = Add(v, eps) d = Sqrt(w) z = Div(c, d) """
TANH = """p = Pow(x, three) k = Constant<value_float=0.044715>() a = Mul(p, k) b = Add(x, a)
    g = Constant<value_float=0.7978846>() c = Mul(b, g) t = Tanh(c) u = Add(t, one) """

FIRES: dict[str, list[tuple[str, str, str]]] = {
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
    "axis-put-back": [
        (
            XN.replace("[2,n] y", "[2,1] y"),
            NUMBERS + "v = ReduceMean<keepdims=0>(x, axes) y = Unsqueeze(v, axes)",
            "axes = Constant<value_ints=[-1]>() y = ReduceMean(x, axes)",
        ),
        (
            "(float[2,n,8] x) => (float[2,1,8] y)",
            """k = Constant<value_ints=[1]>() d = Constant<value_ints=[2,1,8]>()
            v = ReduceMax<keepdims=0>(x, k) y = Reshape(v, d)""",
            "k = Constant<value_ints=[1]>() y = ReduceMax(x, k)",
        ),
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
        )
    ],
    "gelu-erf": [
        (
            XN,
            NUMBERS + "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, half) y = Mul(c, d)",
            "y = Gelu(x)",
        ),
        (
            XN,
            NUMBERS
            + "a = Div(x, root2) b = Erf(a) c = Mul(b, half) d = Add(half, c) y = Mul(x, d)",
            "y = Gelu(x)",
        ),
        (
            XN,
            NUMBERS + "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(c, x) y = Div(d, two)",
            "y = Gelu(x)",
        ),
    ],
    "gelu-tanh": [
        (XN, NUMBERS + TANH + "v = Mul(x, u) y = Mul(half, v)", 'y = Gelu<approximate="tanh">(x)'),
        (XN, NUMBERS + TANH + "v = Mul(half, x) y = Mul(v, u)", 'y = Gelu<approximate="tanh">(x)'),
        # x * (1 + 0.044715 * x * x), as BLOOM has it
        (
            XN,
            NUMBERS
            + """k = Constant<value_float=0.044715>() a = Mul(x, k) b = Mul(a, x) e = Add(b, one)
            g = Constant<value_float=0.79788456>() c = Mul(x, g) f = Mul(c, e) t = Tanh(f)
            u = Add(one, t) v = Mul(x, half) y = Mul(v, u)""",
            'y = Gelu<approximate="tanh">(x)',
        ),
    ],
    "swish": [
        (XN, "a = Sigmoid(x) y = Mul(x, a)", "y = Swish<alpha=1.0>(x)"),
        (XN, NUMBERS + "b = Mul(two, x) a = Sigmoid(b) y = Mul(a, x)", "y = Swish<alpha=2.0>(x)"),
    ],
    "sigmoid": [
        (XN, NUMBERS + "a = Neg(x) b = Exp(a) c = Add(b, one) y = Div(one, c)", "y = Sigmoid(x)"),
        (XN, NUMBERS + "a = Neg(x) b = Exp(a) c = Add(one, b) y = Reciprocal(c)", "y = Sigmoid(x)"),
    ],
    "softplus": [(XN, NUMBERS + "a = Exp(x) b = Add(a, one) y = Log(b)", "y = Softplus(x)")],
    "mish": [(XN, "a = Softplus(x) b = Tanh(a) y = Mul(b, x)", "y = Mish(x)")],
    "hard-swish": [
        (
            XN,
            NUMBERS + "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
            "y = HardSwish(x)",
        ),
        (
            XN,
            "a = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(a, x)",
            "y = HardSwish(x)",
        ),
    ],
    "softmax": [
        (
            XN,
            NUMBERS
            + """m = ReduceMax(x, axes) a = Sub(x, m) b = Exp(a) c = ReduceSum(b, axes)
            y = Div(b, c)""",
            "y = Softmax<axis=-1>(x)",
        ),
        # summed in float32
        (
            "(float16[2,n] x) => (float16[2,n] y)",
            NUMBERS
            + """m = ReduceMax(x, axes) a = Sub(x, m) b = Exp(a) w = Cast<to=1>(b)
            c = ReduceSum(w, axes) d = Cast<to=10>(c) y = Div(b, d)""",
            "y = Softmax<axis=-1>(x)",
        ),
    ],
    "log-softmax": [(XN, "a = Softmax<axis=0>(x) y = Log(a)", "y = LogSoftmax<axis=0>(x)")],
    "unfuse-layer-normalization": [(XB, "y = LayerNormalization<epsilon=0.001>(x, s, t)", "")],
    "unfuse-rms-normalization": [(X8, "y = RMSNormalization<epsilon=0.001>(x, s)", "")],
    "unfuse-gelu": [(XN, "y = Gelu(x)", ""), (XN, 'y = Gelu<approximate="tanh">(x)', "")],
    "unfuse-swish": [(XN, "y = Swish(x)", "a = Sigmoid(x) y = Mul(x, a)")],
    "unfuse-mish": [(XN, "y = Mish(x)", "a = Softplus(x) b = Tanh(a) y = Mul(x, b)")],
    "unfuse-hard-swish": [
        (XN, "y = HardSwish(x)", "a = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, a)")
    ],
    "simplified-to-rms-normalization": [
        (
            X8,
            "y = SimplifiedLayerNormalization<epsilon=0.001>(x, s)",
            "y = RMSNormalization<epsilon=0.001>(x, s)",
        )
    ],
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
