"""What each rule about products and weights does to a graph."""

from __future__ import annotations

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "pad-of-conv": [
        (
            "(float[n,2,5,5] x, float[3,2,3,3] w) => (float[n,3,h,v] y)",
            """p = Constant<value_ints=[0,0,1,0,0,0,2,1]>() a = Pad(x, p)
               y = Conv<pads=[1,0,1,1], strides=[2,1]>(a, w)""",
            "y = Conv<pads=[2,0,3,2], strides=[2,1]>(x, w)",
        ),
        (
            "(float[n,2,5] x, float[3,2,3] w) => (float[n,3,h] y)",
            """p = Constant<value_ints=[1,2]>() k = Constant<value_ints=[-1]>()
               a = Pad(x, p, "", k) y = Conv<auto_pad="VALID">(a, w)""",
            "y = Conv<pads=[1,2]>(x, w)",
        ),
    ],
    "matmul-add": [
        (
            "(float[n,4] a, float[4,3] b, float[3] c) => (float[n,3] y)",
            "m = MatMul(a, b) y = Add(c, m)",
            "y = Gemm(a, b, c)",
        )
    ],
    "gemm-add": [
        (
            "(float[n,4] a, float[3,4] b, float[3] c) => (float[n,3] y)",
            "m = Gemm<transB=1, alpha=0.5>(a, b) y = Add(c, m)",
            "y = Gemm<transB=1, alpha=0.5>(a, b, c)",
        )
    ],
    "gemm-of-transpose": [
        (
            "(float[4,n] a, float[4,3] b, float[3] c) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(a) y = Gemm(t, b, c)",
            "y = Gemm<transA=1>(a, b, c)",
        ),
        (
            "(float[n,4] a, float[4,3] b) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(b) y = Gemm<transB=1>(a, t)",
            "y = Gemm<transB=0>(a, b)",
        ),
    ],
    "matmul-of-transpose": [
        (
            "(float[4,n] a, float[4,3] b) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(a) y = MatMul(t, b)",
            "y = Gemm<transA=1>(a, b)",
        ),
        (
            "(float[n,4] a, float[3,4] b) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(b) y = MatMul(a, t)",
            "y = Gemm<transB=1>(a, b)",
        ),
    ],
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
    "sum-of-sum": [
        (
            "(float[n] x) => (float[n] y)",
            """a = Constant<value_float=0.5>() b = Constant<value_float=1.0>()
               s = Add(a, x) y = Add(s, b)""",
            "c = Constant<value_float=1.5>() y = Add(x, c)",
        )
    ],
    "product-of-product": [
        (
            "(float[n] x) => (float[n] y)",
            """a = Constant<value_float=0.5>() b = Constant<value_float=3.0>()
               s = Mul(a, x) y = Mul(s, b)""",
            "c = Constant<value_float=1.5>() y = Mul(x, c)",
        )
    ],
    "quotient-by-constant": [
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=4.0>() y = Div(x, a)",
            "c = Constant<value_float=0.25>() y = Mul(x, c)",
        )
    ],
    "product-with-reciprocal": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "r = Reciprocal(z) y = Mul(r, x)",
            "y = Div(x, z)",
        )
    ],
    "root-of-square": [("(float[n] x) => (float[n] y)", "s = Mul(x, x) y = Sqrt(s)", "y = Abs(x)")],
}
