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
    "split-in-one": [
        (
            "(float[n,6] x) => (float[n,3] y)",
            "a, b = Split<axis=1,num_outputs=2>(x) y = Neg(a)",
            "into 2 parts",
        )
    ],
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
    "squeeze-of-slice": [
        (
            "(float[n,3] x) => (float[n] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[3]>()
               s = Slice(x, a, b, a) y = Squeeze(s, a)""",
            "1:3 is not one index",
        ),
        (
            "(float[n,m] x) => (float[m] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[2]>()
               z = Constant<value_ints=[0]>() s = Slice(x, a, b, a) y = Squeeze(s, z)""",
            "axes (1,) are cut, (0,) removed",
        ),
        (
            "(float[n,m] x) => (float[n] y)",
            """a = Constant<value_ints=[-1]>() b = Constant<value_ints=[0]>()
               s = Slice(x, a, b, a) y = Squeeze(s, a)""",
            "-1:0 is not one index",
        ),
    ],
    "squeeze-of-split": [
        (
            "(float[n,2] x) => (float[n] y, float[n,1] z)",
            """a = Constant<value_ints=[1]>() p, q = Split<axis=1, num_outputs=2>(x)
               y = Squeeze(p, a) z = Neg(q)""",
            "'z' needs a part with axis 1",
        ),
        (
            "(float[1,4] x) => (float[2] y)",
            """a = Constant<value_ints=[0]>() p, q = Split<axis=1, num_outputs=2>(x)
               y = Squeeze(p, a)""",
            "not every part of 'p' is known to be one index",
        ),
        (
            "(float[n,1] x) => (float[n] y)",
            "a = Constant<value_ints=[1]>() y = Squeeze(x, a)",
            "'x' is no part of a Split",
        ),
    ],
    "sum-with-negated": [
        (
            "(int64[n] x, int64[n] z) => (int64[n] y)",
            "k = Constant<value_int=-2>() m = Mul(k, z) y = Add(m, x)",
            "found -2",
        ),
        (
            "(int64 x, int64 z) => (int64[1] y)",
            "k = Constant<value_ints=[-1]>() m = Mul(k, z) y = Add(m, x)",
            "expected a constant -1.0, found [-1]",
        ),
    ],
    "undone": [
        ("(float[n] x) => (float[n] y)", "a = Abs(x) y = Neg(a)", "expected Neg, found Abs")
    ],
    "done-twice": [
        ("(float[n] x) => (float[n] y)", "a = Abs(x) y = Relu(a)", "expected Relu, found Abs")
    ],
    "insert-into-empty": [
        (
            "(float[a] x, seq(float[a]) e) => (float[b] y)",
            "s = SequenceInsert(e, x) y = ConcatFromSequence<axis=0>(s)",
            "expected SequenceEmpty",
        ),
    ],
    "insert-at-the-end": [
        (
            "(float[a] x, float[b] z) => (float[c] y)",
            """i = Constant<value_int=0>() e = SequenceConstruct(x) s = SequenceInsert(e, z, i)
               y = ConcatFromSequence<axis=0>(s)""",
            "input",
        ),
    ],
    "concat-of-construct": [
        (
            "(seq(float[a]) s) => (float[c] y)",
            "y = ConcatFromSequence<axis=-1>(s)",
            "expected SequenceConstruct",
        ),
    ],
    "at-of-indices": [
        (
            "(float[a,b] x, int64 i) => (float[a] y)",
            "s = SplitToSequence<axis=1,keepdims=0>(x) y = SequenceAt(s, i)",
            "not a constant int",
        ),
    ],
    "at-of-construct": [
        (
            "(float[a] x) => (float[a] y)",
            "i = Constant<value_int=1>() e = SequenceConstruct(x) y = SequenceAt(e, i)",
            "there is no element 1",
        ),
    ],
    "at-of-parts": [
        (
            "(float[a] x) => (float[b] y)",
            """k = Constant<value_int=2>() i = Constant<value_int=-1>()
               s = SplitToSequence(x, k) y = SequenceAt(s, i)""",
            "where part -1 lies is not known",
        ),
        (
            "(float[a] x) => (float[b] y)",
            """k = Constant<value_ints=[2,3]>() i = Constant<value_int=2>()
               s = SplitToSequence(x, k) y = SequenceAt(s, i)""",
            "where part 2 lies is not known",
        ),
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
}
