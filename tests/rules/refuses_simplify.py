"""Why each simplifying rule leaves a graph alone."""

from __future__ import annotations

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "identity": [
        ("(float[n] x) => (float[n] y)", "y = Identity(x)", "keeps the name of an output")
    ],
    "dropout": [
        (
            "(float[n] x) => (float[n] y)",
            """r = Constant<value_float=0.3>() t = Constant<value=bool {1}>()
               y = Dropout(x, r, t)""",
            "it is training",
        ),
        (
            "(float[n] x) => (float[n] y, bool[n] m)",
            "y, m = Dropout(x)",
            "its output 'm' is used",
        ),
        (
            "(float[n] x, float r, bool t) => (float[n] y)",
            "y = Dropout(x, r, t)",
            "not a constant bool",
        ),
    ],
    "cast-to-same": [
        ("(float[n] x) => (int64[n] y)", "y = Cast<to=7>(x)", "'x' is FLOAT, not INT64")
    ],
    "reshape-to-same": [
        (
            "(float[n,4] x) => (float[m,2] y)",
            "s = Constant<value_ints=[-1,2]>() y = Reshape(x, s)",
            "not known to have the shape (-1, 2)",
        ),
        (
            "(float[n,4] x) => (float[m] y)",
            "s = Constant<value_ints=[-1]>() y = Reshape(x, s)",
            "from 2 to 1 axes",
        ),
    ],
    "transpose-nowhere": [
        ("(float[n,m] x) => (float[m,n] y)", "y = Transpose<perm=[1,0]>(x)", "(1, 0) moves axes")
    ],
    "slice-everything": [
        (
            "(float[n,4] x) => (float[n,3] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[4]>()
               s = Slice(x, a, b, a) y = Neg(s)""",
            "1:4 of 4 leaves something out",
        ),
        (
            "(float[n,4] x) => (float[m,4] y)",
            """a = Constant<value_ints=[0]>() b = Constant<value_ints=[1000]>()
               s = Slice(x, a, b) y = Neg(s)""",
            "0:1000 of n leaves something out",
        ),
    ],
    "pad-nothing": [
        (
            "(float[n,m] x) => (float[n,k] y)",
            "p = Constant<value_ints=[0,0,0,1]>() y = Pad(x, p)",
            "pads by (0, 0, 0, 1)",
        )
    ],
    "one-operand": [("(float[n] x) => (float[n] y)", "y = Max(x, x)", "has a further input")],
    "concat-of-empty": [
        (
            "(float[n] x) => (float[m] y)",
            "y = Concat<axis=0>(x, x)",
            "no operand is known to be empty",
        )
    ],
    "expand-to-same": [
        (
            "(float[1,n] x) => (float[3,n] y)",
            "s = Constant<value_ints=[3,1]>() y = Expand(x, s)",
            "'x' may grow to (3, 1)",
        )
    ],
    "expand-without-effect": [
        (
            "(float[1,n] x, int64[2] s) => (float[m,n] y)",
            "y = Expand(x, s)",
            "may be larger than 'x'",
        )
    ],
    "to-own-shape": [
        ("(float[n] x, float[m] z) => (float[m] y)", "s = Shape(z) y = Expand(x, s)", "x is 'x'")
    ],
    "tile-once": [
        (
            "(float[n] x) => (float[m] y)",
            "s = Constant<value_ints=[2]>() y = Tile(x, s)",
            "repeats (2,) times",
        )
    ],
    "clip-nothing": [
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=0.0>() y = Clip(x, a)",
            "clips to 0.0 .. None",
        )
    ],
    "neutral-operand": [
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=1.5>() y = Mul(x, a)",
            "expected a constant 1.0, found 1.5",
        ),
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=1.0>() y = Sub(a, x)",
            "expected a constant 0.0",
        ),
    ],
    "neutral-truth": [
        (
            "(bool[n] x) => (bool[n] y)",
            "f = Constant<value=bool {0}>() y = And(f, x)",
            "expected a constant 1.0, found 0",
        )
    ],
    "where-either-is-the-same": [
        ("(bool[n] c, float[1] x) => (float[n] y)", "y = Where(c, x, x)", "may widen 'x'")
    ],
    "flatten-matrix": [
        ("(float[n,m,k] x) => (float[n,j] y)", "y = Flatten(x)", "no matrix flattened after axis 1")
    ],
    "cast-of-cast": [
        (
            "(float[n] x) => (float[n] y)",
            "c = Cast<to=10>(x) y = Cast<to=1>(c)",
            "FLOAT to FLOAT16 may lose bits",
        ),
        (
            "(int32[n] x) => (int64[n] y)",
            "c = Cast<to=1>(x) y = Cast<to=7>(c)",
            "INT32 to FLOAT may lose bits",
        ),
        (
            "(float16[n] x) => (float[n] y)",
            "c = Cast<to=16>(x) y = Cast<to=1>(c)",
            "FLOAT16 to BFLOAT16",
        ),
        ("(int8[n] x) => (int64[n] y)", "c = Cast<to=2>(x) y = Cast<to=7>(c)", "INT8 to UINT8"),
    ],
    "transpose-of-transpose": [
        ("(float[n,m] x) => (float[n,m] y)", "t = Transpose(x) y = Transpose(t)", "has no perm")
    ],
    "reshape-of-reshape": [
        (
            "(float[n,m,k] x) => (float[a,b,c] y)",
            """s = Constant<value_ints=[0,-1,6]>() t = Constant<value_ints=[0,0,-1]>()
               r = Reshape(x, s) y = Reshape(r, t)""",
            "copies axes of 'r' whose sizes are not known",
        )
    ],
    "squeeze-of-unsqueeze": [
        (
            "(float[1,m] x) => (float[1,m] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[0]>()
               u = Unsqueeze(x, a) y = Squeeze(u, b)""",
            "(1,) added, (0,) removed",
        )
    ],
    "unsqueeze-of-squeeze": [
        (
            "(float[n,1,m] x) => (float[1,n,m] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[0]>()
               u = Squeeze(x, a) y = Unsqueeze(u, b)""",
            "(1,) removed, (0,) added",
        )
    ],
    "unsqueeze-of-unsqueeze": [
        (
            "(float[n] x, int64[1] a) => (float[k,l,m] y)",
            "b = Constant<value_ints=[0]>() u = Unsqueeze(x, a) y = Unsqueeze(u, b)",
            "first is not a constant list of ints",
        )
    ],
    "squeeze-of-squeeze": [
        (
            "(float[1,1,n] x, int64[1] a) => (float[n] y)",
            "b = Constant<value_ints=[0]>() u = Squeeze(x, a) y = Squeeze(u, b)",
            "first is not a constant list of ints",
        )
    ],
    "slice-of-slice": [
        (
            "(float[9] x) => (float[a] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[-1]>()
               z = Constant<value_ints=[0]>() s = Slice(x, a, b, z) y = Slice(s, a, b, z)""",
            "axis 0 is cut twice, backwards or from the end",
        )
    ],
    "undone": [
        ("(float[n] x) => (float[n] y)", "a = Abs(x) y = Neg(a)", "expected Neg, found Abs")
    ],
    "done-twice": [
        ("(float[n] x) => (float[n] y)", "a = Abs(x) y = Relu(a)", "expected Relu, found Abs")
    ],
    "reshape-of-thin-transpose": [
        (
            "(float[n,2,m] x) => (float[k] y)",
            "s = Constant<value_ints=[-1]>() t = Transpose<perm=[0,2,1]>(x) y = Reshape(t, s)",
            "(0, 2, 1) moves elements of 'x'",
        )
    ],
    "concat-of-split": [
        (
            "(float[n,6] x) => (float[n,6] y)",
            "a, b = Split<axis=1, num_outputs=2>(x) y = Concat<axis=1>(b, a)",
            "not all parts of one Split, in order",
        ),
        (
            "(float[6,6] x) => (float[3,12] y)",
            "a, b = Split<axis=0, num_outputs=2>(x) y = Concat<axis=1>(a, b)",
            "split along another axis than 1",
        ),
    ],
    "concat-of-concat": [
        (
            "(float[n] x) => (float[k] y, float[m] z)",
            "a = Concat<axis=0>(x, x) y = Concat<axis=0>(a, x) z = Neg(a)",
            "no operand is a Concat along axis 0 used here alone",
        )
    ],
    "shape-of-elementwise": [
        ("(float[n,m] x) => (int64[2] y)", "t = Transpose(x) y = Shape(t)", "found Transpose")
    ],
    "unsqueeze-of-gather": [
        (
            "(int64[4,4] x) => (int64[1,4] y)",
            """i = Constant<value_int=2>() z = Constant<value_ints=[0]>()
               g = Gather(x, i) y = Unsqueeze(g, z)""",
            "v ('x') is not known to have 1 axes",
        )
    ],
    "concat-of-gathers": [
        (
            "(int64[4] x, int64[4] z) => (int64[2] y)",
            """i = Constant<value_ints=[2]>() g = Gather(x, i) h = Gather(z, i)
               y = Concat<axis=0>(g, h)""",
            "no neighbours are taken from one vector",
        )
    ],
    "gather-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            "i = Constant<value_ints=[0,2]>() s = Shape(x) y = Gather(s, i)",
            "(0, 2) are not neighbours",
        )
    ],
    "slice-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            """a = Constant<value_ints=[0]>() b = Constant<value_ints=[3]>()
               t = Constant<value_ints=[2]>() s = Shape(x) y = Slice(s, a, b, a, t)""",
            "has a further input, [2]",
        )
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
