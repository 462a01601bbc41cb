"""Rules of simplify.chains: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from rules.drawing import (
    NUMERIC,
    cuts,
    more,
    nested,
    one_end,
    one_start,
    parts,
    regrouped,
    single_column,
    some_axes,
    two_axes,
)
from rules.instances import Hints

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "cast-of-cast": [
        (
            "(float16[n] x) => (int64[n] y)",
            "c = Cast<to=1>(x) y = Cast<to=7>(c)",
            "y = Cast<to=7>(x)",
        ),
        (
            "(float16[n] x) => (float16[n] y, float[n] z)",
            "c = Cast<to=1>(x) b = Cast<to=10>(c) y = Neg(b) z = Exp(c)",
            "y = Neg(x) c = Cast<to=1>(x) z = Exp(c)",
        ),
    ],
    "transpose-of-transpose": [
        (
            "(float[a,b,c] x) => (float[b,a,c] y)",
            "t = Transpose<perm=[1,2,0]>(x) y = Transpose<perm=[0,2,1]>(t)",
            "y = Transpose<perm=[1,0,2]>(x)",
        ),
        (
            "(float[a,b,c] x) => (float[a,b,c] y)",
            "t = Transpose<perm=[1,2,0]>(x) u = Transpose<perm=[2,0,1]>(t) y = Neg(u)",
            "y = Neg(x)",
        ),
    ],
    "reshape-of-reshape": [
        (
            "(float[n,4,6] x) => (float[n,24] y)",
            """s = Constant<value_ints=[0,8,3]>() t = Constant<value_ints=[0,-1]>()
               a = Reshape(x, s) y = Reshape(a, t)""",
            "t = Constant<value_ints=[0,-1]>() y = Reshape(x, t)",
        ),
        (
            "(float[n,4,6] x) => (float[n,4,2,3] y)",
            """a = Constant<value_ints=[1]>() t = Constant<value_ints=[-1,4,2,3]>()
               u = Unsqueeze(x, a) y = Reshape(u, t)""",
            "t = Constant<value_ints=[-1,4,2,3]>() y = Reshape(x, t)",
        ),
    ],
    "squeeze-of-unsqueeze": [
        (
            "(float[n,m] x) => (float[n,m] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[-2]>()
               u = Unsqueeze(x, a) s = Squeeze(u, b) y = Neg(s)""",
            "y = Neg(x)",
        )
    ],
    "unsqueeze-of-squeeze": [
        (
            "(float[n,1,m] x) => (float[n,1,m] y)",
            "a = Constant<value_ints=[1]>() s = Squeeze(x, a) u = Unsqueeze(s, a) y = Neg(u)",
            "y = Neg(x)",
        )
    ],
    "unsqueeze-of-unsqueeze": [
        (
            "(float[n,m] x) => (float[n,1,m,1] y)",
            """a = Constant<value_ints=[2]>() b = Constant<value_ints=[1]>()
               u = Unsqueeze(x, a) y = Unsqueeze(u, b)""",
            "c = Constant<value_ints=[1,3]>() y = Unsqueeze(x, c)",
        )
    ],
    "squeeze-of-squeeze": [
        (
            "(float[1,n,1,m] x) => (float[n,m] y)",
            """a = Constant<value_ints=[0]>() b = Constant<value_ints=[1]>()
               u = Squeeze(x, a) y = Squeeze(u, b)""",
            "c = Constant<value_ints=[0,2]>() y = Squeeze(x, c)",
        )
    ],
    "slice-of-slice": [
        (
            "(float[8,9] x) => (float[a,b] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[6]>()
               i = Constant<value_ints=[0]>() j = Constant<value_ints=[1]>()
               s = Slice(x, a, b, i) t = Slice(s, a, b, j) y = Slice(t, a, b, i)""",
            """p = Constant<value_ints=[2,1]>() q = Constant<value_ints=[6,6]>()
               r = Constant<value_ints=[0,1]>() o = Constant<value_ints=[1,1]>()
               y = Slice(x, p, q, r, o)""",
        )
    ],
    "squeeze-of-slice": [
        (
            "(float[n,3,m] x) => (float[n,m] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[2]>()
               s = Slice(x, a, b, a) y = Squeeze(s, a)""",
            "i = Constant<value_int=1>() y = Gather<axis=1>(x, i)",
        ),
        (
            "(float[n,m] x) => (float[n] y)",
            """a = Constant<value_ints=[-1]>() b = Constant<value_ints=[9223372036854775807]>()
               s = Slice(x, a, b, a) y = Squeeze(s, a)""",
            "i = Constant<value_int=-1>() y = Gather<axis=1>(x, i)",
        ),
    ],
    "squeeze-of-split": [
        (
            "(float[n,3,m] x) => (float[n,m] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[-2]>()
               p, q, r = Split<axis=1, num_outputs=3>(x) s = Squeeze(p, a) t = Squeeze(r, b)
               y = Sub(s, t)""",
            """i = Constant<value_int=0>() j = Constant<value_int=2>()
               s = Gather<axis=1>(x, i) t = Gather<axis=1>(x, j) y = Sub(s, t)""",
        )
    ],
    "sum-with-negated": [
        (
            "(int64[n] x, int64[n] z) => (int64[n] y)",
            "k = Constant<value_int=-1>() m = Mul(k, z) y = Add(m, x)",
            "y = Sub(x, z)",
        ),
        ("(float[n] x, float[m] z) => (float[k] y)", "m = Neg(z) y = Add(x, m)", "y = Sub(x, z)"),
    ],
    "undone": [("(float[n] x) => (float[n] y)", "a = Neg(x) b = Neg(a) y = Exp(b)", "y = Exp(x)")],
    "done-twice": [
        (
            "(float[n] x) => (float[n] y)",
            "a = Relu(x) b = Relu(a) y = Exp(b)",
            "a = Relu(x) y = Exp(a)",
        )
    ],
    "reshape-of-thin-transpose": [
        (
            "(float[n,1,m,4] x) => (float[n,k] y)",
            """s = Constant<value_ints=[0,-1]>()
               t = Transpose<perm=[0,2,1,3]>(x) u = Reshape(t, s) y = Neg(u)""",
            "",
        )
    ],
    "concat-of-split": [
        (
            "(float[n,6] x) => (float[n,6] y)",
            "a, b, c = Split<axis=1, num_outputs=3>(x) d = Concat<axis=-1>(a, b, c) y = Neg(d)",
            "y = Neg(x)",
        )
    ],
    "concat-of-concat": [
        (
            "(float[n] x, float[m] z) => (float[k] y)",
            "a = Concat<axis=0>(x, z) y = Concat<axis=-1>(z, a, x)",
            "y = Concat<axis=-1>(z, x, z, x)",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
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
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "cast-of-cast": {"dtypes": ("float16", "float32", "int32", "uint8")},
    "transpose-of-transpose": {"x": "T[a,b,c]", "dtypes": NUMERIC},
    "reshape-of-reshape": {
        "x": "T[2,3,1,4]",
        "shape": regrouped,
        "Reshape+": more([6, 4], [2, 3, 4], [3, 8]),
        "Squeeze+": more([2]),
        "Unsqueeze+": more([0], [1, 3]),
        "Flatten()": lambda draw: {"axis": 2},
    },
    "squeeze-of-unsqueeze": {
        "x": "T[a,b]",
        "added": some_axes("x", 1),
        "removed": [(0,), (1,), (-1,)],
    },
    "unsqueeze-of-squeeze": {
        "x": "T[a,1,b]",
        "removed": [(1,), (-2,)],
        "added": [(1,), (-2,), (0,)],
    },
    "unsqueeze-of-unsqueeze": {
        "x": "T[a,b]",
        "first": [(0,), (1, 2), (-1,), (2,)],
        "second": [(0,), (1, -1), (-1,), (3,)],
    },
    "squeeze-of-squeeze": {
        "x": "T[1,a,1,b,1]",
        "first": [(0,), (2,), (-1,), (0, 2)],
        "second": [(0,), (-1,), (1,), (2,)],
    },
    "slice-of-slice": {
        "x": "T[5,6,4]",
        **{f"starts{n}": cuts("starts") for n in (1, 2)},
        **{f"ends{n}": cuts("ends") for n in (1, 2)},
        **{f"axes{n}": two_axes for n in (1, 2)},
        **{f"steps{n}": [(1, 1), (1, 1), (1, 2)] for n in (1, 2)},
    },
    "undone": {"x": "T[a]", "dtypes": ("float32", "bool", "int32")},
    "done-twice": {"any": "T[a,b]"},
    "reshape-of-thin-transpose": {
        "x": "T[1,2,1,12]",
        "perm": [[1, 0, 2, 3], [1, 2, 3, 0], [0, 2, 1, 3], [3, 0, 1, 2]],
        "shape": regrouped,
    },
    "squeeze-of-slice": {
        "x": "T[3,4]",
        "starts": one_start,
        "ends": one_end,
        "axes": [(1,), (-1,)],
        "steps": [(1,)],
        "removed": [(1,), (-1,)],
        "dtypes": NUMERIC,
    },
    "squeeze-of-split": {"part": single_column, "removed": [(1,), (-1,)], "dtypes": NUMERIC},
    "sum-with-negated": {"dtypes": NUMERIC, "x": "T[a,b]", "y": ["T[a,b]", "T[b]", "T[]"]},
    "concat-of-split": {"xs": parts, "axis": [0, -2]},
    "concat-of-concat": {"xs": nested, "axis": [0, -2]},
}
