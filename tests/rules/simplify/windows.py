"""Rules of simplify.windows: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from rules.drawing import conv, conv_weights
from rules.instances import Hints

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
}

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
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "pad-of-conv": {
        "x": "T[1,2,5,5]",
        "dtypes": ("float32",),
        "opset": (18, 20, 21),
        "conv": conv,
        "Conv+": conv_weights,
        "pads": [(1, 0, 0, 2), (0, 0, 1, 1)],
        "axes": [(2, 3), (-1, -2)],
        "mode": ["constant"],
        "value": [0.0],
    },
}
