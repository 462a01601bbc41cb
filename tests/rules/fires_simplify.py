"""What each simplifying rule does to a graph."""

from __future__ import annotations

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "identity": [("(float[n] x) => (float[n] y)", "i = Identity(x) y = Neg(i)", "y = Neg(x)")],
    "dropout": [
        ("(float[n] x) => (float[n] y)", "d = Dropout(x) y = Neg(d)", "y = Neg(x)"),
        (
            "(float[n] x) => (float[n] y)",
            """r = Constant<value_float=0.3>() t = Constant<value=bool {0}>()
               d, mask = Dropout<seed=3>(x, r, t) y = Neg(d)""",
            "y = Neg(x)",
        ),
    ],
    "cast-to-same": [
        ("(float[n] x) => (float[n] y)", "c = Cast<to=1>(x) y = Neg(c)", "y = Neg(x)")
    ],
    "reshape-to-same": [
        (
            "(float[n,4] x) => (float[n,4] y)",
            "s = Constant<value_ints=[-1,4]>() r = Reshape(x, s) y = Neg(r)",
            "y = Neg(x)",
        )
    ],
    "transpose-nowhere": [
        (
            "(float[n,m] x) => (float[n,m] y)",
            "t = Transpose<perm=[0,1]>(x) y = Neg(t)",
            "y = Neg(x)",
        )
    ],
    "slice-everything": [
        (
            "(float[n,4] x) => (float[n,4] y)",
            """a = Constant<value_ints=[0,0]>() b = Constant<value_ints=[9223372036854775807,4]>()
               s = Slice(x, a, b) y = Neg(s)""",
            "y = Neg(x)",
        )
    ],
    "pad-nothing": [
        (
            "(float[n,m] x) => (float[n,m] y)",
            'p = Constant<value_ints=[0,0,0,0]>() s = Pad<mode="edge">(x, p) y = Neg(s)',
            "y = Neg(x)",
        )
    ],
    "one-operand": [
        (
            "(float[n] x) => (float[n] y)",
            "c = Concat<axis=0>(x) m = Max(c) y = Neg(m)",
            "y = Neg(x)",
        )
    ],
    "split-in-one": [
        (
            "(float[n,6] x) => (float[n,6] y)",
            """s = Constant<value_ints=[6]>() a = Split<axis=1>(x, s)
               b = Split<axis=0,num_outputs=1>(a) y = Neg(b)""",
            "y = Neg(x)",
        )
    ],
    "concat-of-empty": [
        (
            "(float[n] x, float[0] e, float[m] z) => (float[k] y)",
            "y = Concat<axis=0>(x, e, z)",
            "y = Concat<axis=0>(x, z)",
        )
    ],
    "expand-to-same": [
        (
            "(float[2,n,4] x) => (float[2,n,4] y)",
            "s = Constant<value_ints=[1,4]>() e = Expand(x, s) y = Neg(e)",
            "y = Neg(x)",
        )
    ],
    "expand-without-effect": [
        (
            "(float[2,3] x) => (float[2,3] y)",
            "s = Constant<value_ints=[2,1]>() e = Expand(x, s) y = Neg(e)",
            "y = Neg(x)",
        )
    ],
    "to-own-shape": [
        (
            "(float[n,m] x) => (float[n,m] y)",
            "s = Shape(x) e = Expand(x, s) r = Reshape(e, s) y = Neg(r)",
            "",
        )
    ],
    "tile-once": [
        (
            "(float[n,m] x) => (float[n,m] y)",
            "s = Constant<value_ints=[1,1]>() e = Tile(x, s) y = Neg(e)",
            "y = Neg(x)",
        )
    ],
    "clip-nothing": [
        ("(float[n] x) => (float[n] y)", 'c = Clip(x, "", "") y = Neg(c)', "y = Neg(x)"),
        (
            "(int8[n] x) => (int8[n] y)",
            """a = Constant<value=int8 {-128}>() b = Constant<value=int8 {127}>()
               c = Clip(x, a, b) y = Neg(c)""",
            "y = Neg(x)",
        ),
    ],
    "neutral-operand": [
        (
            "(float[n] x) => (float[n] y)",
            f"""one = Constant<value_float=1.0>() zero = Constant<value_float=0.0>()
                a = Mul(one, x) b = {name}(a, {operand}) y = Neg(b)""",
            "y = Neg(x)",
        )
        for name, operand in (("Div", "one"), ("Pow", "one"), ("Add", "zero"), ("Sub", "zero"))
    ],
    "neutral-truth": [
        (
            "(bool[n] x) => (bool[n] y)",
            """t = Constant<value=bool {1}>() f = Constant<value=bool {0}>()
               a = And(t, x) b = Or(a, f) c = Xor(b, f) y = Not(c)""",
            "y = Not(x)",
        )
    ],
    "where-either-is-the-same": [
        (
            "(bool[1] c, float[n] x) => (float[n] y)",
            "w = Where(c, x, x) y = Neg(w)",
            "y = Neg(x)",
        )
    ],
    "flatten-matrix": [
        ("(float[n,m] x) => (float[n,m] y)", "f = Flatten(x) y = Neg(f)", "y = Neg(x)")
    ],
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
    "insert-into-empty": [
        (
            "(float[a] x) => (float[b] y)",
            """e = SequenceEmpty<dtype=1>() s = SequenceInsert(e, x)
               y = ConcatFromSequence<axis=0>(s)""",
            "s = SequenceConstruct(x) y = ConcatFromSequence<axis=0>(s)",
        ),
    ],
    "insert-at-the-end": [
        (
            "(float[a] x, float[b] z) => (float[c] y)",
            """e = SequenceConstruct(x) s = SequenceInsert(e, z)
               y = ConcatFromSequence<axis=0>(s)""",
            "s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=0>(s)",
        ),
    ],
    "at-of-construct": [
        (
            "(float[a] x, float[b] z) => (float[b] y)",
            """i = Constant<value_int=-1>() e = SequenceConstruct(x, z) s = SequenceAt(e, i)
               y = Neg(s)""",
            "y = Neg(z)",
        ),
    ],
    "concat-of-construct": [
        (
            "(float[a] x, float[b] z) => (float[c] y)",
            "s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=-1>(s)",
            "y = Concat<axis=-1>(x, z)",
        ),
        (
            "(float[a] x, float[a] z) => (float[a,2] y)",
            "s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=-1,new_axis=1>(s)",
            "",
        ),
    ],
    "at-of-indices": [
        (
            "(float[a,b] x) => (float[a] y)",
            """i = Constant<value_int=-1>() s = SplitToSequence<axis=1,keepdims=0>(x)
               y = SequenceAt(s, i)""",
            "i = Constant<value_int=-1>() y = Gather<axis=1>(x, i)",
        ),
        (
            "(float[a,b] x) => (float[a,1] y)",
            "i = Constant<value_int=0>() s = SplitToSequence<axis=1>(x) y = SequenceAt(s, i)",
            "",
        ),
    ],
    "at-of-parts": [
        (
            "(float[5] x) => (float[c] y)",
            """k = Constant<value_int=2>() i = Constant<value_int=2>()
               s = SplitToSequence(x, k) y = SequenceAt(s, i)""",
            "",
        ),
        (
            "(float[a,5] x) => (float[a,2] y)",
            """k = Constant<value_ints=[1,2,2]>() i = Constant<value_int=-2>()
               s = SplitToSequence<axis=-1,keepdims=0>(x, k) y = SequenceAt(s, i)""",
            "",
        ),
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
    "shape-of-elementwise": [
        ("(float[n,4] x) => (int64[2] y)", "c = Cast<to=10>(x) y = Shape(c)", "y = Shape(x)")
    ],
    "unsqueeze-of-gather": [
        (
            "(int64[4] x) => (int64[1] y)",
            """i = Constant<value_int=2>() z = Constant<value_ints=[0]>()
               g = Gather(x, i) y = Unsqueeze(g, z)""",
            "i = Constant<value_ints=[2]>() y = Gather(x, i)",
        )
    ],
    "concat-of-gathers": [
        (
            "(int64[4] x, int64[1] o) => (int64[4] y)",
            """i = Constant<value_ints=[2]>() j = Constant<value_ints=[0,1]>()
               g = Gather(x, i) h = Gather(x, j) y = Concat<axis=0>(o, g, h)""",
            "i = Constant<value_ints=[2,0,1]>() g = Gather(x, i) y = Concat<axis=0>(o, g)",
        )
    ],
    "gather-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            "i = Constant<value_ints=[0,1]>() s = Shape(x) y = Gather(s, i)",
            "y = Shape<start=0, end=2>(x)",
        )
    ],
    "slice-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[9223372036854775807]>()
               z = Constant<value_ints=[0]>() s = Shape(x) y = Slice(s, a, b, z)""",
            "y = Shape<start=1>(x)",
        )
    ],
}
