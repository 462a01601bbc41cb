"""Rules of fuse.activations: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from rules.drawing import FLOAT, ORT_TYPES, own_type
from rules.instances import Hints
from rules.texts import NUMBERS, XN

TANH = """p = Pow(x, three) k = Constant<value_float=0.044715>() a = Mul(p, k) b = Add(x, a)
    g = Constant<value_float=0.7978846>() c = Mul(b, g) t = Tanh(c) u = Add(t, one) """


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
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
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
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
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "softmax": {"x": "T[a,b]", "axes": [(-1,), (0,)], "wide": [FLOAT], "narrow": own_type},
    "log-softmax": {"x": "T[a,b]", "axis": [-1, 0]},
    "swish": {"alpha": [1.702, 0.5], "dtypes": ORT_TYPES},
    "gelu-erf": {"dtypes": ORT_TYPES},
    "gelu-tanh": {"dtypes": ORT_TYPES},
    "softplus": {"dtypes": ("float32",)},
    "hard-swish": {"dtypes": ("float32",)},
    "mish": {"dtypes": ("float32",)},
}
