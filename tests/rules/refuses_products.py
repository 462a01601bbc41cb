"""Why each rule about products and weights leaves a graph alone."""

from __future__ import annotations

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "pad-of-conv": [
        (
            "(float[n,2,5] x, float[3,2,3] w) => (float[n,3,h] y)",
            'p = Constant<value_ints=[0,0,1,0,0,1]>() a = Pad<mode="edge">(x, p) y = Conv(a, w)',
            "with zeros alone",
        ),
        (
            "(float[n,2,5] x, float[3,2,3] w) => (float[n,3,h] y)",
            "p = Constant<value_ints=[0,0,-1,0,0,1]>() a = Pad(x, p) y = Conv(a, w)",
            "are no pads of a Conv",
        ),
        (
            "(float[n,1,5] x, float[3,2,3] w) => (float[n,3,h] y)",
            "p = Constant<value_ints=[0,1,0,0,0,0]>() a = Pad(x, p) y = Conv(a, w)",
            "are no pads of a Conv",
        ),
        (
            "(float[n,2,5] x, float[3,2,3] w) => (float[n,3,h] y)",
            """p = Constant<value_ints=[0,0,1,0,0,1]>() a = Pad(x, p)
               y = Conv<auto_pad="SAME_UPPER">(a, w)""",
            "says itself how much it pads",
        ),
    ],
    "matmul-add": [
        (
            "(float[2,n,4] a, float[4,3] b, float[3] c) => (float[2,n,3] y)",
            "m = MatMul(a, b) y = Add(c, m)",
            "is not known to have 2 axes",
        ),
        (
            "(float[1,4] a, float[4,3] b, float[5,3] c) => (float[5,3] y)",
            "m = MatMul(a, b) y = Add(c, m)",
            "'c' may be larger",
        ),
    ],
    "gemm-add": [
        (
            "(float[1,4] a, float[4,3] b, float[5,3] c) => (float[5,3] y)",
            "m = Gemm(a, b) y = Add(c, m)",
            "'c' may be larger than the product",
        ),
        (
            "(float[n,4] a, float[4,3] b, float[3] c) => (float[n,3] y)",
            "m = Gemm<beta=0.5>(a, b) y = Add(c, m)",
            "scales what it adds",
        ),
    ],
    "gemm-of-transpose": [
        (
            "(float[n,4] a, float[4,3] b) => (float[n,3] y)",
            "t = Transpose<perm=[0,1]>(a) y = Gemm(t, b)",
            "expected perm=(1, 0), found (0, 1)",
        )
    ],
    "matmul-of-transpose": [
        (
            "(float[4,n] a, float[2,4,3] b) => (float[2,n,3] y)",
            "t = Transpose<perm=[1,0]>(a) y = MatMul(t, b)",
            "is not known to have 2 axes",
        )
    ],
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
    ],
    "sum-of-conv": [
        (
            "(float[n,1,4,2] x) => (float[n,2,4,2] y)",
            """w = Constant<value=float[2,1,1,1] {1,2}>() k = Constant<value_floats=[2.0,3.0]>()
               c = Conv(x, w) y = Add(k, c)""",
            "the summand is no number for each channel",
        )
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
    ],
    "sum-of-sum": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "a = Constant<value_float=0.5>() s = Add(z, x) y = Add(s, a)",
            "a is not a constant float",
        )
    ],
    "product-of-product": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "a = Constant<value_float=0.5>() s = Mul(z, x) y = Mul(s, a)",
            "a is not a constant float",
        )
    ],
    "quotient-by-constant": [
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=0.0>() y = Div(x, a)",
            "division by zero",
        ),
        (
            "(int64[n] x) => (int64[n] y)",
            "a = Constant<value_int=2>() y = Div(x, a)",
            "type of x is INT64",
        ),
    ],
    "product-with-reciprocal": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "r = Sqrt(z) y = Mul(r, x)",
            "expected Reciprocal",
        )
    ],
    "root-of-square": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "s = Mul(x, z) y = Sqrt(s)",
            "x is 'x' elsewhere",
        )
    ],
}
