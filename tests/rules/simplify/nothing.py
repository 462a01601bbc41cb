"""Rules of simplify.nothing: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rules.drawing import NUMERIC
from rules.instances import Draw, Hints


def with_empty(draw: Draw) -> list[ir.Value]:
    """Inputs of a Concat along the first axis, some of them without elements."""
    sizes = [int(draw.choose((0, 1, 2))) for _ in range(4)]  # type: ignore[call-overload]
    return [draw.input((size, draw.dim("b")), draw.dtype) for size in sizes]


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
}

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
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "cast-to-same": {"to": lambda draw: ir.DataType.from_numpy(draw.dtype).value},
    "reshape-to-same": {
        "x": "T[2,3,4]",
        "shape": [(2, 3, 4), (0, 0, 0), (0, -1, 4), (2, 3, -1), (-1, 3, 4), (0, -1, 0)],
        "dtypes": NUMERIC,
    },
    "transpose-nowhere": {
        "x": "T[a,b,c]",
        "perm": lambda draw: [[0, 1, 2], [0, 2, 1]][int(draw.rng.integers(4) == 0)],
    },
    "slice-everything": {
        "x": "T[3,2,4]",
        "starts": [(0, 0)],
        "ends": [(9, 9), (2**63 - 1, 4), (3, 2**31 - 1)],
        "axes": [(0, 2), (2, 0), (-3, -1), (1, 2)],
        "steps": [(1, 1)],
    },
    "pad-nothing": {"x": "T[a,b]", "pads": [(0, 0, 0, 0)]},
    "split-in-one": {
        "x": "T[a,b]",
        "split": lambda draw: {"axis": -1, **({"num_outputs": 1} if draw.opset >= 18 else {})},
    },
    "concat-of-empty": {"xs": with_empty, "axis": [0, -2]},
    "expand-to-same": {"x": "T[2,3]", "shape": [(1,), (3,), (2, 3), (1, 3), (2, 1), (4, 2, 3)]},
    "expand-without-effect": {
        "x": "T[2,3]",
        "any": lambda draw: np.array(draw.choose([(1, 3), (3, 1)])),
    },
    "tile-once": {"x": "T[a,b]", "repeats": [(1, 1)]},
    "clip-nothing": {
        "low": [-np.inf],
        "high": [np.inf],
        "x": "T[a,b]",
    },
    "neutral-operand": {"dtypes": NUMERIC},
    "neutral-truth": {"x": "bool[a,b]"},
    "where-either-is-the-same": {"x": "T[a,b]", "any": "T[1]"},
    "flatten-matrix": {"x": "T[a,b]", "axis": [1, -1]},
    "one-operand": {"axis": [0]},
}
